"""Trainings that the user stopped: their progress, and the state that is kept."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EarlyEnd:
    """A training stopped at a step, whose best state so far is kept."""

    step: int
    steps: int
    best_step: int

    @property
    def note(self) -> str:
        return (
            f"Training was ended at step {self.step} of {self.steps}, as requested; "
            f"the state of step {self.best_step} is kept."
        )


@dataclass(frozen=True)
class GenerationsEnd(EarlyEnd):
    """A training of several generations, stopped in one of them; step 0 is before its first."""

    generation: int
    best_generation: int
    best_quality: str

    @property
    def note(self) -> str:
        where = f"at step {self.step} of {self.steps}" if self.step else "before the first step"
        return (
            f"Training was ended {where} of generation {self.generation}, as requested; the "
            f"best of all generations is kept: what generation {self.best_generation} knew at "
            f"step {self.best_step}, with {self.best_quality}."
        )


@dataclass(frozen=True)
class PruningEnd:
    """A pruning schedule stopped before its target; shares are of all weights."""

    step: int
    steps: int
    sparsity: float
    target: float

    @property
    def note(self) -> str:
        return (
            f"Training was ended at step {self.step} of {self.steps}, as requested; "
            f"{self.sparsity:.0%} of the weights were zero then, of {self.target:.0%} that were "
            "to be."
        )


@dataclass(frozen=True)
class TicketsEnd:
    """A lottery-ticket experiment stopped between two networks; round 0 is the dense network."""

    networks: int
    planned: int
    round: int

    @property
    def note(self) -> str:
        result = (
            f"the winning ticket of round {self.round}"
            if self.round
            else "the dense network, since no round was finished"
        )
        return (
            f"Training was ended after {self.networks} of {self.planned} networks, as requested; "
            f"the result is {result}."
        )
