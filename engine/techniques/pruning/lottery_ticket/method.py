"""The lottery ticket hypothesis (Frankle & Carbin 2019, arXiv:1803.03635): iterative magnitude
pruning with rewinding, against twins.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import ClassVar, Literal

import torch

from engine.errors import Cancelled, PlainError
from engine.events import TicketEvent
from engine.models.layers import Layer
from engine.models.loaded_model import compute_place
from engine.models.loading import untrained
from engine.recipe import Recipe
from engine.recipe.tasks import LanguageModeling
from engine.results.schema.tables import LotteryRow
from engine.runtime.threads import threads_to_train
from engine.step.early_end import TicketsEnd
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Subject
from engine.step.run_context import Bench
from engine.step.trained_weights import Trained
from engine.techniques.hooks import blueprint, compress, plan, refuse_unfit, retrained
from engine.techniques.pruning.gradual.magnitude_schedule import cut, stored
from engine.techniques.pruning.gradual.method import refuse_emptying
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.techniques.pruning.unstructured.method import left_of
from engine.tensors.weights import Stored
from engine.training import (
    Course,
    Exercises,
    Lessons,
    Pupil,
    lessons_of,
    pupil_of,
    quality_of,
    trained,
)
from engine.training.checkpoint import Kept, State, file_in, loaded, saved, went_on
from engine.training.losses import by_labels

# of each round, in the order in which they are trained
TWINS = ("other first weights", "random mask", "winning ticket")
# from a seed to that of its twin's first weights; more than there are seeds to choose
TWIN = 1_000_003


class Ticket(Magnitude):
    """The setting of one layer: what is stored is the ticket, cut by magnitude."""

    title: ClassVar[str] = LotteryTicket.title
    trains: ClassVar[bool] = True
    technique: Literal["lottery-ticket"] = "lottery-ticket"


def ticket(how: LotteryTicket) -> Ticket:
    return Ticket(
        sparsity=min(0.99, how.removed), scope=how.scope, storage=how.storage, values=how.values
    ).model_copy(update={"sparsity": how.removed})


@plan.register
def plan_lottery_ticket(
    how: LotteryTicket, layers: list[Layer], trial: Trial | None = None
) -> dict[str, Ticket]:
    """Use equal sparsities in a forecast: training finds the real ones."""
    return plan(ticket(how), layers)


@compress.register
def compress_lottery_ticket(how: LotteryTicket, weight: torch.Tensor, seen: None = None) -> Stored:
    """A look at one layer: its trained weights cut by magnitude, since a ticket takes training to
    find.
    """
    return compress(ticket(how), weight)


@blueprint.register
def blueprint_lottery_ticket(how: LotteryTicket, shape: tuple[int, int]) -> Stored:
    return blueprint(ticket(how), shape)


@refuse_unfit.register
def refuse_unfit_lottery_ticket(how: LotteryTicket, recipe: Recipe) -> None:
    if isinstance(recipe.task, LanguageModeling):
        raise PlainError(
            "Lottery tickets are compared by accuracy, which language models do not have; "
            "choose a text or image classifier."
        )


@retrained.register
def retrained_lottery_ticket(how: LotteryTicket, bench: Bench, subject: Subject) -> Trained:
    if bench.folder.packed:
        raise PlainError(
            "A lottery ticket begins with the model's own random weights, so no step can "
            "come before it; put it first."
        )
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    for layer in layers:
        refuse_emptying(layer.name, left_of(ticket(how), layer.matrix_shape))
    device, _ = compute_place(bench.recipe)
    pupil = pupil_of(bench.folder, subject.original, layers, device)
    pupil.prepare()
    lessons = lessons_of(bench.recipe, bench.folder)
    lottery = Lottery(
        how, bench, pupil, lessons, subject.trial.rows.lottery, file_in(subject.keeps(), "lottery")
    )
    with threads_to_train(subject.original.parameters):
        pupil.come_back(lottery.drawn())
    return Trained(stored(pupil, plan(how, layers)), pupil.plain())


REWINDING = TicketEvent("training")  # up to the step that networks are rewound to


@dataclass(frozen=True, kw_only=True)
class Draw(Kept):
    """State that the next network needs from previous ones, and the result if there is none.
    Initial weights depend on the seed.
    """

    row: ClassVar[type] = LotteryRow
    early: State  # what a ticket is set back to
    masks: State  # of this round
    parent: State  # the trained network whose smallest weights go next
    result: State


@dataclass
class Lottery:
    """One model in which every network is trained, one after the other."""

    how: LotteryTicket
    bench: Bench
    pupil: Pupil
    lessons: Lessons
    rows: list[LotteryRow] = field(default_factory=list)
    file: Path | None = None  # where it is kept meanwhile
    early: State = field(default_factory=dict)
    masks: State = field(default_factory=dict)
    parent: State = field(default_factory=dict)
    result: State = field(default_factory=dict)

    def drawn(self) -> State:
        """The winning ticket of the first seed's last round, trained; of the last round finished if
        the user asks to stop.
        """
        self.take_up()
        try:
            for seed, number, variant in self.networks()[len(self.rows) :]:
                self.one(variant, seed, number)
                self.keep()
        except Cancelled:
            if not self.rows:
                raise
            self.end()
        return self.result

    def networks(self) -> list[tuple[int, int, str]]:
        """(seed, round, variant) of each, in their order."""
        each = [(0, "dense"), *product(range(1, self.how.rounds + 1), TWINS)]
        return [
            (self.bench.recipe.seed + repeat, *one)
            for repeat, one in product(range(self.how.seeds), each)
        ]

    def one(self, variant: str, seed: int, number: int) -> None:
        """A dense network comes first. In every round the weights left of the network before are
        set back and trained, and so are twins.
        """
        match variant:
            case "dense":
                self.begin(seed)
            case "other first weights":
                self.masks = self.smaller(number)
                self.set_out(self.first_weights(seed + TWIN), self.masks)
                self.network(variant, seed, number)
            case "random mask":
                self.set_out(self.early, self.at_random(self.masks, seed, number))
                self.network(variant, seed, number, self.how.rewind_step)
            case "winning ticket":
                self.set_out(self.early, self.masks)
                self.passed_on(self.network(variant, seed, number, self.how.rewind_step), seed)

    def begin(self, seed: int) -> None:
        """All others of the seed come from its dense network."""
        first = self.first_weights(seed)
        ready = self.set_out(
            first, {name: torch.ones_like(mask) for name, mask in self.masks_now().items()}
        )
        self.early = self.train(seed, self.how.rewind_step) if self.how.rewind_step else first
        self.pupil.come_back(ready)
        self.passed_on(self.network("dense", seed, 0), seed)

    def passed_on(self, state: State, seed: int) -> None:
        """A trained network to the next round, and of the first seed to whoever asked."""
        self.parent = state
        if seed == self.bench.recipe.seed:
            self.result = state

    def network(self, variant: str, seed: int, number: int, begun: int = 0) -> State:
        """Trained from where it was set out, and noted."""
        state = self.train(
            seed,
            self.how.steps,
            begun,
            TicketEvent("training", network=variant, round=number, seed=seed),
        )
        masks = self.masks_now()
        left = sum(int(mask.sum()) for mask in masks.values()) / sum(
            mask.numel() for mask in masks.values()
        )
        self.rows.append(
            LotteryRow(
                variant,
                seed,
                number,
                left,
                quality_of(self.pupil.model, self.lessons.held_out).value,
            )
        )
        return state

    def train(
        self,
        seed: int,
        until: int,
        begun: int = 0,
        event: TicketEvent = REWINDING,
    ) -> State:
        """Train from step ``begun`` with a new optimizer."""
        course = Course(self.how.steps, self.how.rate, self.how.batch, seed)
        for step, _ in trained(
            self.pupil.model,
            self.lessons.train,
            course,
            self.loss,
            begun,
            said=self.bench.notes.append,
        ):
            done, total = (
                len(self.rows) * self.how.steps + step,
                self.how.trainings * self.how.steps,
            )
            self.bench.progress(replace(event, done=done, total=total))
            if step >= until:
                break
        return self.pupil.state()

    def loss(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        return by_labels(logits, batch.targets.to(logits.device))

    # --- kept meanwhile ---------------------------------------------------------------------------

    def keep(self) -> None:
        saved(
            Draw(
                rows=self.rows,
                early=self.early,
                masks=self.masks,
                parent=self.parent,
                result=self.result,
            ),
            self.file,
        )

    def take_up(self) -> None:
        """The networks that an earlier run has trained."""
        kept = loaded(Draw, self.file, next(self.pupil.model.parameters()).device)
        if kept is None:
            return
        self.rows.extend(kept.rows)
        self.early, self.masks, self.parent, self.result = (
            kept.early,
            kept.masks,
            kept.parent,
            kept.result,
        )
        self.bench.notes.append(
            went_on(len(kept.rows), self.how.trainings, "networks were trained")
        )

    def end(self) -> None:
        """Record that training was ended on request, with the network that becomes the result."""
        of_first = [
            row
            for row in self.rows
            if row.seed == self.bench.recipe.seed and row.variant in ("dense", "winning ticket")
        ]
        self.bench.ended_early.append(
            TicketsEnd(len(self.rows), self.how.trainings, of_first[-1].round)
        )

    # --- weights and masks ------------------------------------------------------------------------

    def first_weights(self, seed: int) -> State:
        """Random ones, as the architecture draws them, of everything that learns."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.named_as_ours(untrained(self.bench.folder).state_dict())

    def named_as_ours(self, state: State) -> State:
        """Weights by the names they have under their masks; none of what rests."""
        names = {
            f"{layer.name}.weight": f"{layer.name}.parametrizations.weight.original"
            for layer in self.pupil.layers
        }
        return {
            names.get(name, name): value.clone()
            for name, value in state.items()
            if name not in self.pupil.resting
        }

    def set_out(self, weights: State, masks: State) -> State:
        """First weights under a mask; the state that this makes."""
        self.pupil.come_back(weights)
        for name, mask in masks.items():
            self.pupil.set_mask(name, mask)
        return self.pupil.state()

    def masks_now(self) -> State:
        return {layer.name: self.pupil.mask(layer.name).clone() for layer in self.pupil.layers}

    def smaller(self, number: int) -> State:
        """Return the previous round's network without its smallest weights."""
        self.pupil.come_back(self.parent)
        cut(self.pupil, ticket(self.how), 1 - self.how.left(number))
        return self.masks_now()

    def at_random(self, masks: State, seed: int, number: int) -> State:
        """Random mask with as many weights in each layer."""
        draw = torch.Generator().manual_seed(seed * 1009 + number)
        return dict(self.shuffled(masks, draw))

    def shuffled(self, masks: State, draw: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
        for name, mask in masks.items():
            order = torch.randperm(mask.numel(), generator=draw).to(mask.device)
            yield name, mask.flatten()[order].view_as(mask)
