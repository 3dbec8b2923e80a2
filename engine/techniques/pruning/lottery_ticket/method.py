"""The lottery ticket hypothesis (Frankle & Carbin 2019, arXiv:1803.03635): iterative magnitude
pruning with rewinding, compared with controls.
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
from engine.models.loaded_model import device_and_dtype
from engine.models.loading import untrained_model
from engine.recipe import Recipe
from engine.recipe.tasks import LanguageModeling
from engine.runtime.threads import threads_to_train
from engine.step.early_end import TicketsEnd
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.step.trained_weights import TrainedWeights
from engine.techniques.hooks import check_recipe, compress, plan, storage_plan, train_weights
from engine.techniques.pruning.gradual.magnitude_schedule import stored_layers, update_masks
from engine.techniques.pruning.gradual.method import check_weights_remain
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.lottery_ticket.tables import LotteryRow
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.techniques.pruning.unstructured.method import remaining_count
from engine.tensors.weights import StoredWeight
from engine.training import (
    EncodedExamples,
    TrainableModel,
    TrainingConfig,
    TrainingData,
    held_out_quality,
    load_recipe_training_data,
    make_trainable,
    train_steps,
)
from engine.training.checkpoint import (
    SavedState,
    State,
    checkpoint_file,
    read_checkpoint,
    resumed_note,
    write_checkpoint,
)
from engine.training.losses import label_loss

# networks of each round, in the order in which they are trained
ROUND_NETWORKS = ("other first weights", "random mask", "winning ticket")
# offset from a seed to that of its control's initial weights; larger than the number of possible
# seeds
CONTROL_SEED_OFFSET = 1_000_003


class LayerTicket(Magnitude):
    """Setting of one layer: the ticket's mask by magnitude."""

    title: ClassVar[str] = LotteryTicket.title
    trains: ClassVar[bool] = True
    technique: Literal["lottery-ticket"] = "lottery-ticket"


def ticket_config(config: LotteryTicket) -> LayerTicket:
    return LayerTicket(
        sparsity=min(0.99, config.removed_share),
        scope=config.scope,
        storage=config.storage,
        values=config.values,
    ).model_copy(update={"sparsity": config.removed_share})


@plan.register
def plan_lottery_ticket(
    config: LotteryTicket, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, LayerTicket]:
    """Equal sparsities for a forecast; the actual ones are found by training."""
    return plan(ticket_config(config), layers)


@compress.register
def compress_lottery_ticket(
    config: LotteryTicket, weight: torch.Tensor, stats: None = None
) -> StoredWeight:
    """What-if on one layer: its trained weights pruned by magnitude, because finding a ticket
    requires training.
    """
    return compress(ticket_config(config), weight)


@storage_plan.register
def storage_plan_lottery_ticket(config: LotteryTicket, shape: tuple[int, int]) -> StoredWeight:
    return storage_plan(ticket_config(config), shape)


@check_recipe.register
def check_recipe_lottery_ticket(config: LotteryTicket, recipe: Recipe) -> None:
    if isinstance(recipe.task, LanguageModeling):
        raise PlainError(
            "Lottery tickets are compared by accuracy, which language models do not have; "
            "choose a text or image classifier."
        )


@train_weights.register
def train_weights_lottery_ticket(
    config: LotteryTicket, context: RunContext, technique_input: TechniqueInput
) -> TrainedWeights:
    if context.folder.packed:
        raise PlainError(
            "A lottery ticket begins with the model's own random weights, so no step can "
            "come before it; put it first."
        )
    layers = [
        layer for layer in technique_input.original.layers if layer.name in technique_input.targets
    ]
    for layer in layers:
        check_weights_remain(layer.name, remaining_count(ticket_config(config), layer.matrix_shape))
    device, _ = device_and_dtype(context.recipe)
    trainable = make_trainable(context.folder, technique_input.original, layers, device)
    trainable.attach_masks()
    training_data = load_recipe_training_data(context.recipe, context.folder)
    lottery = LotteryExperiment(
        config,
        context,
        trainable,
        training_data,
        technique_input.layer_swap.tables.lottery,
        checkpoint_file(technique_input.open_checkpoint_folder(), "lottery"),
    )
    with threads_to_train(technique_input.original.parameters):
        trainable.load_state(lottery.run())
    return TrainedWeights(stored_layers(trainable, plan(config, layers)), trainable.plain())


REWINDING = TicketEvent("training")  # up to the step that networks are rewound to


@dataclass(frozen=True, kw_only=True)
class LotteryState(SavedState):
    """State that the next network needs from previous ones, and the result if there is none.
    Initial weights depend on the seed.
    """

    row: ClassVar[type] = LotteryRow
    early: State  # weights to which a ticket is rewound
    masks: State  # of this round
    parent: State  # trained network whose smallest weights are pruned next
    result: State


@dataclass
class LotteryExperiment:
    """Training of every network with one model, one after the other."""

    config: LotteryTicket
    context: RunContext
    trainable: TrainableModel
    training_data: TrainingData
    rows: list[LotteryRow] = field(default_factory=list)
    file: Path | None = None  # checkpoint file
    early: State = field(default_factory=dict)
    masks: State = field(default_factory=dict)
    parent: State = field(default_factory=dict)
    result: State = field(default_factory=dict)

    def run(self) -> State:
        """The trained ticket of the first seed's last round, or of the last completed round if the
        user stops the run.
        """
        self.resume()
        try:
            for seed, number, variant in self.networks()[len(self.rows) :]:
                self.train_variant(variant, seed, number)
                self.save()
        except Cancelled:
            if not self.rows:
                raise
            self.end()
        return self.result

    def networks(self) -> list[tuple[int, int, str]]:
        """(seed, round, variant) of each network, in their order."""
        rounds = [(0, "dense"), *product(range(1, self.config.rounds + 1), ROUND_NETWORKS)]
        return [
            (self.context.recipe.seed + repeat, *network)
            for repeat, network in product(range(self.config.seeds), rounds)
        ]

    def train_variant(self, variant: str, seed: int, number: int) -> None:
        """Train the dense network first. In every round, rewind and train the remaining weights of
        the previous ticket, and its controls.
        """
        match variant:
            case "dense":
                self.train_dense(seed)
            case "other first weights":
                self.masks = self.pruned_masks(number)
                self.load_weights_and_masks(
                    self.initial_weights(seed + CONTROL_SEED_OFFSET), self.masks
                )
                self.train_network(variant, seed, number)
            case "random mask":
                self.load_weights_and_masks(self.early, self.random_masks(self.masks, seed, number))
                self.train_network(variant, seed, number, self.config.rewind_step)
            case "winning ticket":
                self.load_weights_and_masks(self.early, self.masks)
                self.set_parent(
                    self.train_network(variant, seed, number, self.config.rewind_step), seed
                )

    def train_dense(self, seed: int) -> None:
        """Prepare the rounds of a seed from its dense network."""
        first = self.initial_weights(seed)
        ready = self.load_weights_and_masks(
            first, {name: torch.ones_like(mask) for name, mask in self.current_masks().items()}
        )
        self.early = self.train(seed, self.config.rewind_step) if self.config.rewind_step else first
        self.trainable.load_state(ready)
        self.set_parent(self.train_network("dense", seed, 0), seed)

    def set_parent(self, state: State, seed: int) -> None:
        """Keep a trained ticket for the next round, and as the result if it is the first seed's."""
        self.parent = state
        if seed == self.context.recipe.seed:
            self.result = state

    def train_network(self, variant: str, seed: int, number: int, first_step: int = 0) -> State:
        """Train one network from its initial weights and record it."""
        state = self.train(
            seed,
            self.config.steps,
            first_step,
            TicketEvent("training", network=variant, round=number, seed=seed),
        )
        masks = self.current_masks()
        left = sum(int(mask.sum()) for mask in masks.values()) / sum(
            mask.numel() for mask in masks.values()
        )
        self.rows.append(
            LotteryRow(
                variant,
                seed,
                number,
                left,
                held_out_quality(self.trainable.model, self.training_data.held_out).value,
            )
        )
        return state

    def train(
        self,
        seed: int,
        until: int,
        first_step: int = 0,
        event: TicketEvent = REWINDING,
    ) -> State:
        """Train from step ``first_step`` with a new optimizer."""
        training_config = TrainingConfig(
            self.config.steps, self.config.rate, self.config.batch, seed
        )
        for step, _ in train_steps(
            self.trainable.model,
            self.training_data.train,
            training_config,
            self.loss,
            first_step,
            on_note=self.context.notes.append,
        ):
            done, total = (
                len(self.rows) * self.config.steps + step,
                self.config.trainings * self.config.steps,
            )
            self.context.progress(replace(event, done=done, total=total))
            if step >= until:
                break
        return self.trainable.state()

    def loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        return label_loss(logits, batch.targets.to(logits.device))

    # --- kept meanwhile ---------------------------------------------------------------------------

    def save(self) -> None:
        write_checkpoint(
            LotteryState(
                rows=self.rows,
                early=self.early,
                masks=self.masks,
                parent=self.parent,
                result=self.result,
            ),
            self.file,
        )

    def resume(self) -> None:
        """Load the networks that an earlier run has trained."""
        checkpoint = read_checkpoint(
            LotteryState, self.file, next(self.trainable.model.parameters()).device
        )
        if checkpoint is None:
            return
        self.rows.extend(checkpoint.rows)
        self.early, self.masks, self.parent, self.result = (
            checkpoint.early,
            checkpoint.masks,
            checkpoint.parent,
            checkpoint.result,
        )
        self.context.notes.append(
            resumed_note(len(checkpoint.rows), self.config.trainings, "networks were trained")
        )

    def end(self) -> None:
        """Record that training was ended on request, with the network that becomes the result."""
        of_first = [
            row
            for row in self.rows
            if row.seed == self.context.recipe.seed and row.variant in ("dense", "winning ticket")
        ]
        self.context.ended_early.append(
            TicketsEnd(len(self.rows), self.config.trainings, of_first[-1].round)
        )

    # --- weights and masks ------------------------------------------------------------------------

    def initial_weights(self, seed: int) -> State:
        """Random initial weights of all trained tensors, as defined by the architecture."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.with_parametrized_names(untrained_model(self.context.folder).state_dict())

    def with_parametrized_names(self, state: State) -> State:
        """Trained tensors by their parametrized names."""
        names = {
            f"{layer.name}.weight": f"{layer.name}.parametrizations.weight.original"
            for layer in self.trainable.layers
        }
        return {
            names.get(name, name): value.clone()
            for name, value in state.items()
            if name not in self.trainable.frozen_names
        }

    def load_weights_and_masks(self, weights: State, masks: State) -> State:
        """State with these initial weights and this mask."""
        self.trainable.load_state(weights)
        for name, mask in masks.items():
            self.trainable.set_mask(name, mask)
        return self.trainable.state()

    def current_masks(self) -> State:
        return {
            layer.name: self.trainable.mask(layer.name).clone() for layer in self.trainable.layers
        }

    def pruned_masks(self, number: int) -> State:
        """Mask of the previous round's network without its smallest weights."""
        self.trainable.load_state(self.parent)
        update_masks(
            self.trainable, ticket_config(self.config), 1 - self.config.remaining_share(number)
        )
        return self.current_masks()

    def random_masks(self, masks: State, seed: int, number: int) -> State:
        """Random mask with as many weights in each layer."""
        draw = torch.Generator().manual_seed(seed * 1009 + number)
        return dict(self.shuffled_masks(masks, draw))

    def shuffled_masks(
        self, masks: State, draw: torch.Generator
    ) -> Iterator[tuple[str, torch.Tensor]]:
        for name, mask in masks.items():
            order = torch.randperm(mask.numel(), generator=draw).to(mask.device)
            yield name, mask.flatten()[order].view_as(mask)
