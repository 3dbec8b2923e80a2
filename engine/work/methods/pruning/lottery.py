"""The lottery ticket hypothesis (Frankle & Carbin 2019, arXiv:1803.03635): iterative magnitude pruning with rewinding, against twins."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import ClassVar, Literal

import torch

from engine.catalog.pruning import Magnitude
from engine.catalog.schedules import LotteryTicket
from engine.catalog.tasks import LanguageModeling
from engine.errors import Cancelled, PlainError
from engine.recipe import Recipe
from engine.results.tables import LotteryRow
from engine.work.bench import Bench
from engine.work.layers import Layer
from engine.work.methods.pruning.cutting import cut, stored
from engine.work.methods.pruning.gradual import refuse_emptying
from engine.work.methods.pruning.unstructured import left_of
from engine.work.methods.stages import blueprint, compress, plan, refuse_unfit, retrained
from engine.work.models import untrained
from engine.work.opened import compute_place
from engine.work.rebuilt import Subject
from engine.work.stored.weights import Stored
from engine.work.threads import threads_to_train
from engine.work.trained import Trained
from engine.work.training import Course, Exercises, Lessons, Pupil, lessons_of, pupil_of, quality_of, trained
from engine.work.training.checkpoint import Kept, State, file_in, loaded, saved, went_on
from engine.work.training.losses import by_labels
from engine.work.trial import Trial

TWINS = ("other first weights", "random mask", "winning ticket")  # of each round, in the order in which they are trained
TWIN = 1_000_003  # from a seed to that of its twin's first weights; more than there are seeds to choose


class Ticket(Magnitude):
    """The setting of one layer: what is stored is the ticket, cut by magnitude."""

    title: ClassVar[str] = LotteryTicket.title
    trains: ClassVar[bool] = True
    technique: Literal["lottery-ticket"] = "lottery-ticket"


def ticket(how: LotteryTicket) -> Ticket:
    return Ticket(sparsity=min(0.99, how.removed), scope=how.scope, storage=how.storage, values=how.values).model_copy(
        update={"sparsity": how.removed}
    )


@plan.register
def _(how: LotteryTicket, layers: list[Layer], trial: Trial | None = None) -> dict[str, Ticket]:
    """What is cut is found by training, so a layer's share is not known before; a forecast takes them to be equal."""
    return plan(ticket(how), layers)


@compress.register
def _(how: LotteryTicket, weight: torch.Tensor, seen: None = None) -> Stored:
    """A look at one layer: its trained weights cut by magnitude, since a ticket takes training to find."""
    return compress(ticket(how), weight)


@blueprint.register
def _(how: LotteryTicket, shape: tuple[int, int]) -> Stored:
    return blueprint(ticket(how), shape)


@refuse_unfit.register
def _(how: LotteryTicket, recipe: Recipe) -> None:
    if isinstance(recipe.task, LanguageModeling):
        raise PlainError("Lottery tickets are told apart by accuracy, which a language model has not; choose a text or image classifier.")


@retrained.register
def _(how: LotteryTicket, bench: Bench, subject: Subject) -> Trained:
    if bench.folder.packed:
        raise PlainError("A lottery ticket begins with the model's own random weights, so no step can come before it; put it first.")
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    for layer in layers:
        refuse_emptying(layer.name, left_of(ticket(how), layer.matrix_shape))
    device, _ = compute_place(bench.recipe)
    pupil = pupil_of(bench.folder, subject.original, layers, device)
    pupil.prepare()
    lessons = lessons_of(bench.recipe, bench.folder)
    lottery = Lottery(how, bench, pupil, lessons, subject.trial.rows.lottery, file_in(subject.keeps(), "lottery"))
    with threads_to_train(subject.original.parameters):
        pupil.come_back(lottery.drawn())
    return Trained(stored(pupil, plan(how, layers)), pupil.plain())


@dataclass(frozen=True, kw_only=True)
class Draw(Kept):
    """What the next network needs of those before it, and the result if there is none. First weights come from the seed."""

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
        """The winning ticket of the first seed's last round, trained; of the last round finished if a person asks to stop."""
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
        return [(self.bench.recipe.seed + repeat, *one) for repeat, one in product(range(self.how.seeds), each)]

    def one(self, variant: str, seed: int, number: int) -> None:
        """A dense network comes first. In every round the weights left of the network before are set back and trained, and so are twins."""
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
        ready = self.set_out(first, {name: torch.ones_like(mask) for name, mask in self.masks_now().items()})
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
        state = self.train(seed, self.how.steps, begun, f" · {variant}, round {number}, seed {seed}")
        masks = self.masks_now()
        left = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
        self.rows.append(LotteryRow(variant, seed, number, left, quality_of(self.pupil.model, self.lessons.held_out).value))
        return state

    def train(self, seed: int, until: int, begun: int = 0, what: str = "") -> State:
        """From step ``begun`` of the course on; the optimizer starts anew."""
        course = Course(self.how.steps, self.how.rate, self.how.batch, seed)
        for step, _ in trained(self.pupil.model, self.lessons.train, course, self.loss, begun, said=self.bench.notes.append):
            self.bench.progress(f"Training{what}", len(self.rows) * self.how.steps + step, self.how.trainings * self.how.steps)
            if step >= until:
                break
        return self.pupil.state()

    def loss(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        return by_labels(logits, batch.targets.to(logits.device))

    # --- kept meanwhile ----------------------------------------------------------------------------------------------

    def keep(self) -> None:
        saved(Draw(rows=self.rows, early=self.early, masks=self.masks, parent=self.parent, result=self.result), self.file)

    def take_up(self) -> None:
        """The networks that an earlier run has trained."""
        kept = loaded(Draw, self.file, next(self.pupil.model.parameters()).device)
        if kept is None:
            return
        self.rows.extend(kept.rows)
        self.early, self.masks, self.parent, self.result = kept.early, kept.masks, kept.parent, kept.result
        self.bench.notes.append(went_on(len(kept.rows), self.how.trainings, "networks were trained"))

    def end(self) -> None:
        """As was asked for."""
        of_first = [row for row in self.rows if row.seed == self.bench.recipe.seed and row.variant in ("dense", "winning ticket")]
        number = of_first[-1].round
        what = f"the winning ticket of round {number}" if number else "the dense network, since no round was finished"
        self.bench.ended_early.append(
            f"Training was ended after {len(self.rows)} of {self.how.trainings} networks, as was asked for; the result is {what}."
        )

    # --- weights and masks -------------------------------------------------------------------------------------------

    def first_weights(self, seed: int) -> State:
        """Random ones, as the architecture draws them, of everything that learns."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.named_as_ours(untrained(self.bench.folder).state_dict())

    def named_as_ours(self, state: State) -> State:
        """Weights by the names they have under their masks; none of what rests."""
        names = {f"{layer.name}.weight": f"{layer.name}.parametrizations.weight.original" for layer in self.pupil.layers}
        return {names.get(name, name): value.clone() for name, value in state.items() if name not in self.pupil.resting}

    def set_out(self, weights: State, masks: State) -> State:
        """First weights under a mask; the state that this makes."""
        self.pupil.come_back(weights)
        for name, mask in masks.items():
            self.pupil.set_mask(name, mask)
        return self.pupil.state()

    def masks_now(self) -> State:
        return {layer.name: self.pupil.mask(layer.name).clone() for layer in self.pupil.layers}

    def smaller(self, number: int) -> State:
        """Of the network that this round comes from: without the least of its weights."""
        self.pupil.come_back(self.parent)
        cut(self.pupil, ticket(self.how), 1 - self.how.left(number))
        return self.masks_now()

    def at_random(self, masks: State, seed: int, number: int) -> State:
        """As many of each layer, drawn by lot."""
        draw = torch.Generator().manual_seed(seed * 1009 + number)
        return dict(self.shuffled(masks, draw))

    def shuffled(self, masks: State, draw: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
        for name, mask in masks.items():
            order = torch.randperm(mask.numel(), generator=draw).to(mask.device)
            yield name, mask.flatten()[order].view_as(mask)
