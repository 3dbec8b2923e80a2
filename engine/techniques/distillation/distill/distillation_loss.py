"""Teacher targets for a batch, and the losses on predictions, states and attention."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.calibration.stream import first, hooked, lists_of_blocks
from engine.errors import PlainError
from engine.models.packed_modules import unpacked_once
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.training.vocabulary import over_shared_tokens
from engine.training import Exercises
from engine.training.loop import Loss, answers, at_rest
from engine.training.losses import by_attention, by_features, by_labels, by_teacher

# what stands between states of different widths, while it is learned
PROJECTIONS = "distillation_projections"


@dataclass
class States:
    """Outputs of some blocks of a model in its last forward pass, in order."""

    names: list[str]
    held: dict[str, torch.Tensor] = field(default_factory=dict)

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        def noting(name: str) -> Any:
            return lambda module, args, output: self.held.update({name: laid_out(first(output))})

        with hooked(
            [model.get_submodule(name).register_forward_hook(noting(name)) for name in self.names]
        ):
            yield


def laid_out(states: torch.Tensor) -> torch.Tensor:
    """Channels last: (examples, channels, height, width) or (examples, tokens, width) -> (examples,
    places, width)
    """
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


def blocks_of(model: nn.Module) -> list[str]:
    return max(lists_of_blocks(model), key=len, default=[])


def pairs_of(how: Distill, student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """The student's blocks that are compared, each with the teacher's at the same share of the way.
    Raises PlainError where there are none.
    """
    mine, its = blocks_of(student), blocks_of(teacher)
    if not (mine and its):
        raise PlainError(
            "The states of teacher and student cannot be compared, since one of them has no "
            "list of blocks; set features to none."
        )
    return [
        (mine[number - 1], its[-(-number * len(its) // len(mine)) - 1])
        for number in compared(how, len(mine))
    ]


def compared(how: Distill, blocks: int) -> tuple[int, ...]:
    """Numbers of the student's blocks, counted from 1. Raises PlainError where it has not so
    many.
    """
    if how.feature_blocks in ("each", "last"):
        return tuple(range(1, blocks + 1)) if how.feature_blocks == "each" else (blocks,)
    if (most := how.compared_blocks[-1]) > blocks:
        raise PlainError(
            f"feature_blocks names block {most}, and the student has {blocks}; give numbers "
            f"from 1 to {blocks}, or each, or last."
        )
    return how.compared_blocks


@dataclass
class Tuition:
    """One student and its teachers, who are asked once about the same examples, however many terms
    want to know.
    """

    how: Distill
    student: nn.Module
    teachers: list[nn.Module]
    compared: list[tuple[str, str]]  # blocks of the student and of its first teacher
    mine: States
    its: States
    tokens: int | None = None  # of the shared tokenizer
    about: Exercises | None = None  # the examples that were asked about last
    known: torch.Tensor | None = None

    @classmethod
    def of(
        cls, how: Distill, student: nn.Module, teachers: list[nn.Module], tokens: int | None = None
    ) -> "Tuition":
        pairs = (
            pairs_of(how, student, teachers[0])
            if how.features != "none" or how.attention_weight
            else []
        )
        mine, its = [one for one, _ in pairs], list(dict.fromkeys(other for _, other in pairs))
        return cls(how, student, teachers, pairs, States(mine), States(its), tokens)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """States are noted, teachers lie unpacked, and projections are added to the student's
        weights.
        """
        with ExitStack() as held:
            held.enter_context(self.mine.of(self.student))
            held.enter_context(self.its.of(self.teachers[0]))
            for teacher in self.teachers:
                held.enter_context(unpacked_once(teacher))
            yield

    def terms(self) -> dict[str, tuple[float, Loss]]:
        how = self.how
        return {
            "labels": (1 - how.distill_weight, by_label),
            "teacher": (how.distill_weight, self.answers_apart),
            "features": (how.feature_weight * (how.features != "none"), self.states_apart),
            "attention": (how.attention_weight, self.attention_apart),
        }

    # --- terms ------------------------------------------------------------------------------------

    def answers_apart(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        return by_teacher(*self.both_answers(logits, batch), self.how.temperature)

    def states_apart(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        self.said(batch, logits.device)
        parts = [
            by_features(self.projected(number, mine), its, self.how.features == "cosine")
            for number, (mine, its) in enumerate(self.both(batch))
        ]
        return torch.stack(parts).mean()

    def attention_apart(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        self.said(batch, logits.device)
        real = mask_of(batch, logits.device)
        parts = [
            by_attention(*(each if real is None else each * real[..., None] for each in pair))
            for pair in self.pairs()
        ]
        return torch.stack(parts).mean()

    def both_answers(self, logits: torch.Tensor, batch: Exercises) -> list[torch.Tensor]:
        """The student's logits and the teachers', over the tokens that they share."""
        return over_shared_tokens([logits, self.said(batch, logits.device)], self.tokens)

    def said(self, batch: Exercises, device: torch.device) -> torch.Tensor:
        """Logits of the teachers, or what they say together; those that are known need not be asked
        for.
        """
        if batch.said is not None:
            return batch.said.to(device)
        if self.about is not batch:
            self.about, self.known = batch, self.asked(batch, device)
        return self.known

    def asked(self, batch: Exercises, device: torch.device) -> torch.Tensor:
        heard = []
        for teacher in self.teachers:
            with at_rest(teacher):
                heard.append(answers(teacher, batch, device))
        return (
            heard[0]
            if len(heard) == 1
            else agreed(
                over_shared_tokens(heard, self.tokens), self.how.temperature, self.how.together
            )
        )

    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(examples, places, width) both. Raises PlainError where there are not as many places."""
        pairs = [(self.mine.held[mine], self.its.held[its]) for mine, its in self.compared]
        if any(mine.shape[1] != its.shape[1] for mine, its in pairs):
            raise PlainError(
                "The states of teacher and student have different numbers of places, so they "
                "cannot be compared; set features to none."
            )
        return pairs

    def both(self, batch: Exercises) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """States of both models without padding.  (positions, width) each"""
        real = mask_of(batch, next(self.student.parameters()).device)
        return [
            tuple(each.flatten(0, 1) if real is None else each[real] for each in pair)
            for pair in self.pairs()
        ]

    def projected(self, number: int, states: torch.Tensor) -> torch.Tensor:
        projections = getattr(self.student, PROJECTIONS, None)
        return states if projections is None else projections[number](states)


def mask_of(batch: Exercises, device: torch.device) -> torch.Tensor | None:
    """Mask of tokens that are not padding.  (examples, tokens) bool"""
    mask = batch.inputs.get("attention_mask")
    return None if mask is None else mask.bool().to(device)


def by_label(logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
    return by_labels(logits, batch.targets.to(logits.device))


def agreed(heard: list[torch.Tensor], temperature: float, by: str) -> torch.Tensor:
    """Logits whose softened probabilities are the mean of the teachers', or weighted by the
    probability of each one's first choice.
    """
    # (teachers, ..., classes)
    shares = torch.stack([(each.float() / temperature).softmax(-1) for each in heard])
    sure = torch.stack([each.float().softmax(-1).amax(-1, keepdim=True) for each in heard])
    weights = sure / sure.sum(0) if by == "confidence" else torch.full_like(sure, 1 / len(heard))
    return temperature * (weights * shares).sum(0).clamp_min(1e-30).log()


# --- projections ----------------------------------------------------------------------------------


@contextmanager
def projections(tuition: Tuition, batch: Exercises, seed: int) -> Iterator[None]:
    """A learned matrix for each pair of blocks whose widths differ; it belongs to the student only
    while that learns.
    """
    if tuition.how.features == "none":
        yield
        return
    device = next(tuition.student.parameters()).device
    with at_rest(tuition.student):
        answers(tuition.student, batch, device)
    tuition.said(batch, device)
    widths = [(mine.shape[-1], its.shape[-1]) for mine, its in tuition.pairs()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = [
            nn.Identity() if mine == its else nn.Linear(mine, its, bias=False)
            for mine, its in widths
        ]
    tuition.student.add_module(PROJECTIONS, nn.ModuleList(made).to(device))
    try:
        yield
    finally:
        delattr(tuition.student, PROJECTIONS)
