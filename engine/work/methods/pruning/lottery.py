"""The lottery ticket hypothesis (Frankle & Carbin 2019, arXiv:1803.03635): iterative magnitude pruning with rewinding, against twins."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from engine.catalog.pruning import Magnitude
from engine.catalog.schedules import LotteryTicket
from engine.catalog.tasks import LanguageModeling
from engine.errors import PlainError
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
from engine.work.training.losses import by_labels
from engine.work.trial import Trial

State = dict[str, torch.Tensor]
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
    refuse_unfit(how, bench.recipe)
    if bench.folder.packed:
        raise PlainError("A lottery ticket begins with the model's own random weights, so no step can come before it; put it first.")
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    for layer in layers:
        refuse_emptying(layer.name, left_of(ticket(how), layer.matrix_shape))
    device, _ = compute_place(bench.recipe)
    pupil = pupil_of(bench.folder, subject.original, layers, device)
    pupil.prepare()
    lessons = lessons_of(bench.recipe, bench.folder)
    lottery = Lottery(how, bench, pupil, lessons, subject.trial.rows.lottery)
    with threads_to_train(subject.original.parameters):
        pupil.come_back(lottery.drawn())
    return Trained(stored(pupil, plan(how, layers)), pupil.plain())


@dataclass
class Lottery:
    """One model in which every network is trained, one after the other."""

    how: LotteryTicket
    bench: Bench
    pupil: Pupil
    lessons: Lessons
    rows: list[LotteryRow] = field(default_factory=list)

    def drawn(self) -> State:
        """The winning ticket of the first seed's last round, trained."""
        tickets = [self.of_seed(self.bench.recipe.seed + number) for number in range(self.how.seeds)]
        return tickets[0]

    def of_seed(self, seed: int) -> State:
        """Its last ticket. In every round the weights left of the network before are set back and trained, and so are twins."""
        first, other = self.first_weights(seed), self.first_weights(seed + TWIN)
        ready = self.set_out(first, {name: torch.ones_like(mask) for name, mask in self.masks().items()})
        early = self.train(seed, self.how.rewind_step) if self.how.rewind_step else first
        self.pupil.come_back(ready)
        state = self.network("dense", seed, 0)
        for number in range(1, self.how.rounds + 1):
            masks = self.smaller(number)
            self.set_out(other, masks)
            self.network("other first weights", seed, number)
            self.set_out(early, self.at_random(masks, seed, number))
            self.network("random mask", seed, number, self.how.rewind_step)
            self.set_out(early, masks)
            state = self.network("winning ticket", seed, number, self.how.rewind_step)
        return state

    def network(self, variant: str, seed: int, number: int, begun: int = 0) -> State:
        """Trained from where it was set out, and noted."""
        state = self.train(seed, self.how.steps, begun, f" · {variant}, round {number}, seed {seed}")
        masks = self.masks()
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

    def masks(self) -> State:
        return {layer.name: self.pupil.mask(layer.name).clone() for layer in self.pupil.layers}

    def smaller(self, number: int) -> State:
        """Of the network trained last: without the least of its weights."""
        cut(self.pupil, ticket(self.how), 1 - self.how.left(number))
        return self.masks()

    def at_random(self, masks: State, seed: int, number: int) -> State:
        """As many of each layer, drawn by lot."""
        draw = torch.Generator().manual_seed(seed * 1009 + number)
        return dict(self.shuffled(masks, draw))

    def shuffled(self, masks: State, draw: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
        for name, mask in masks.items():
            order = torch.randperm(mask.numel(), generator=draw).to(mask.device)
            yield name, mask.flatten()[order].view_as(mask)
