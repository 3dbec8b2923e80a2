"""Pruning during training (Zhu & Gupta 2017, arXiv:1710.01878), with pruning feedback, penalties, a
teacher, and stopping criteria.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from engine.errors import PlainError, option_name
from engine.evaluation.measured import evaluation_mode
from engine.events import TrainingEvent
from engine.models.layers import SKIP
from engine.models.loaded_model import device_and_dtype
from engine.models.packed_modules import keep_unpacked
from engine.quantities import megabytes
from engine.results.schema.tables import NAN, CurveRow
from engine.runtime.threads import threads_to_train
from engine.step.early_end import PruningEnd
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.step.trained_weights import TrainedWeights
from engine.techniques.hooks import plan, train_weights
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.magnitude_schedule import (
    nonzero_counts,
    stored_layers,
    update_masks,
    written_size_bytes,
)
from engine.techniques.pruning.gradual.tables import ScheduleRow
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.unstructured.method import remaining_count
from engine.techniques.pruning.unstructured.scores import importance
from engine.training import (
    EncodedExamples,
    Quality,
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
from engine.training.loop import batch_logits, make_optimizer
from engine.training.losses import l1_norm, label_loss, teacher_loss
from engine.training.masks import gates_of

MB = 1e6


@importance.register
def importance_gradual(config: Gradual, weight: torch.Tensor, stats: None = None) -> torch.Tensor:
    """Importance is the magnitude."""
    return weight.abs()


@train_weights.register
def train_weights_gradual(
    config: Gradual, context: RunContext, technique_input: TechniqueInput
) -> TrainedWeights:
    device, _ = device_and_dtype(context.recipe)
    layers = [
        layer for layer in technique_input.original.layers if layer.name in technique_input.targets
    ]
    settings = plan(config, layers)
    for layer in layers:
        check_weights_remain(layer.name, remaining_count(settings[layer.name], layer.matrix_shape))
    trainable = make_trainable(context.folder, technique_input.original, layers, device)
    trainable.attach_masks(config.regrow, gated=config.regularizer == "l0")
    training_data = load_recipe_training_data(
        context.recipe, context.folder, config.steps * config.batch
    )
    training_config = TrainingConfig(config.steps, config.rate, config.batch, context.recipe.seed)
    descent = GradualPruner(
        config,
        context,
        trainable,
        training_data,
        training_config,
        settings,
        checkpoint_file(technique_input.open_checkpoint_folder(), "gradual"),
    )
    try:
        with threads_to_train(technique_input.original.parameters):
            descent.run()
    finally:
        technique_input.layer_swap.tables.schedule.extend(descent.rows)
    return TrainedWeights(stored_layers(trainable, settings), trainable.plain())


def check_weights_remain(name: str, left: int) -> None:
    if not left:
        raise PlainError(
            f"{name}: No weight would be left; remove a smaller share, or name the layer "
            f"under {SKIP}."
        )


@dataclass(frozen=True, kw_only=True)
class PrunerState(SavedState):
    """State of a pruning schedule after an evaluation, and of the pruning step that followed it.
    The first row contains the original's quality.
    """

    row: ClassVar[type] = ScheduleRow
    step: int  # done
    model: State  # with masks and gates
    optimizer: dict[str, Any]
    held: State | None
    reached: float | None
    regrown: float


@dataclass
class GradualPruner:
    """Gradual pruning of one model: prune, train, evaluate, repeat."""

    config: Gradual
    context: RunContext
    trainable: TrainableModel
    training_data: TrainingData
    training_config: TrainingConfig
    settings: dict[str, Pruning]
    file: Path | None = None  # checkpoint file
    rows: list[ScheduleRow] = field(default_factory=list)
    dense: Quality | None = None
    fallback_state: State | None = None  # last state above the quality floor
    losses: list[float] = field(default_factory=list)  # losses since the last row
    reached_share: float | None = None  # share at which the target size was reached
    regrown: float = 0.0  # masks at the last pruning step

    def run(self) -> None:
        first_step = self.resume()
        if not first_step:
            self.measure_original()
            self.prune(0, 1)
        for step, loss in train_steps(
            self.trainable.model,
            self.training_data.train,
            self.training_config,
            self.loss,
            first_step,
            self.optimizer,
            self.context.notes.append,
        ):
            self.losses.append(loss)
            self.context.report_stage(TrainingEvent("training", step, self.config.steps, loss=loss))
            if self.should_stop(step):
                break

    def should_stop(self, step: int) -> bool:
        """Return True if the schedule ends here. Otherwise prune, and write a checkpoint."""
        if self.context.is_stopping:
            self.end(step)
            return True
        every = min(self.config.prune_every, self.config.steps)
        if step % every and step < self.config.steps:
            return False
        if not self.meets_floor(step):
            self.revert(step)
            return True
        if step < self.config.steps and self.prunes_again(step // every + 1):
            self.prune(step, step // every + 1)
        self.save(step)
        return False

    def end(self, step: int) -> None:
        """End the schedule as configured: with the current model, or with the last state above the
        quality floor. Raises Cancelled if there is none.
        """
        if not self.meets_floor(step):
            if self.fallback_state is None:
                self.context.progress(TrainingEvent("training", step, self.config.steps))
            self.revert(step)
        self.context.ended_early.append(
            PruningEnd(step, self.config.steps, self.rows[-1].sparsity, self.config.removed_share)
        )

    def prunes_again(self, number: int) -> bool:
        """Return True if another pruning step would change anything."""
        return self.config.regrow or (
            number <= self.config.pruning_steps and self.reached_share is None
        )

    def measure_original(self) -> None:
        """Record the original's quality, and check that the requested quality floor and size can be
        reached.
        """
        self.context.progress(TrainingEvent("training", 0, self.config.steps))
        self.dense = held_out_quality(self.trainable.model, self.training_data.held_out)
        if self.config.floor and not self.dense.relative_to(self.dense):
            raise PlainError(
                "The original gets none of the held-out examples right, so there is no floor "
                f"to keep to; set {option_name(self.config, 'floor')} to 0."
            )
        self.check_target_size()
        self.record(0, self.dense, "before")

    def check_target_size(self) -> None:
        smallest_bytes = written_size_bytes(
            self.trainable,
            self.settings,
            {
                layer.name: remaining_count(self.config, layer.matrix_shape)
                for layer in self.trainable.layers
            },
        )
        if self.config.target_mb and smallest_bytes > self.config.target_mb * MB:
            raise PlainError(
                f"With {self.config.removed_share:.0%} removed, the model's file still takes "
                f"{megabytes(smallest_bytes)}, more than the {self.config.target_mb:g} MB of "
                f"{option_name(self.config, 'target_mb')}; raise it, or "
                f"{option_name(self.config, 'sparsity')}."
            )

    def prune(self, step: int, number: int) -> None:
        """Prune to the share of a step, or to the reached share once the target size is met; the
        choice of weights may still change.
        """
        before = {
            layer.name: self.trainable.mask(layer.name).clone() for layer in self.trainable.layers
        }
        share = (
            self.config.sparsity_at(number) if self.reached_share is None else self.reached_share
        )
        update_masks(self.trainable, self.config, share)
        self.regrown = regrown_share(self.trainable, before)
        event = "cut"
        if (
            self.config.target_mb
            and self.reached_share is None
            and self.size() <= self.config.target_mb * MB
        ):
            self.reached_share, event = share, "size reached"
        self.record(
            step, held_out_quality(self.trainable.model, self.training_data.held_out), event
        )

    def size(self) -> int:
        return written_size_bytes(self.trainable, self.settings, nonzero_counts(self.trainable))

    def meets_floor(self, step: int) -> bool:
        """Return True if the trained model is above the quality floor; if so, it is kept as a
        fallback.
        """
        quality = held_out_quality(self.trainable.model, self.training_data.held_out)
        is_above_floor = (
            not self.config.floor or quality.relative_to(self.dense) >= self.config.floor
        )
        self.record(step, quality, "trained" if is_above_floor else "below the floor")
        if is_above_floor and self.config.floor:
            self.fallback_state = self.trainable.state()
        return is_above_floor

    def revert(self, step: int) -> None:
        if self.fallback_state is None:
            raise PlainError(
                f"After the first pruning step and {step} training steps, quality is below "
                f"{self.config.floor:.0%} of the original's; lower "
                f"{option_name(self.config, 'floor')}, remove less at once, or train for longer."
            )
        self.trainable.load_state(self.fallback_state)
        self.record(
            step, held_out_quality(self.trainable.model, self.training_data.held_out), "went back"
        )

    def record(self, step: int, quality: Quality, event: str) -> None:
        left, total = (
            nonzero_counts(self.trainable),
            sum(layer.parameters for layer in self.trainable.layers),
        )
        loss = sum(self.losses) / len(self.losses) if self.losses else NAN
        size = written_size_bytes(self.trainable, self.settings, left)
        self.check_open_gates(left)
        self.rows.append(
            ScheduleRow(
                step,
                1 - sum(left.values()) / total,
                loss,
                quality.name,
                quality.value,
                size,
                self.regrown,
                event,
            )
        )
        self.context.stream(curve_rows(self.rows[-1]))
        if event != "cut":
            self.losses.clear()

    def check_open_gates(self, left: dict[str, int]) -> None:
        if self.config.regularizer == "l0" and not all(left.values()):
            raise PlainError(
                f"Every gate of {min(left, key=left.get)} has closed; lower "
                f"{option_name(self.config, 'strength')}, which is {self.config.strength:g}, or "
                f"{option_name(self.config, 'rate')}."
            )

    # --- kept meanwhile ---------------------------------------------------------------------------

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return make_optimizer(self.trainable.model, self.training_config)

    def save(self, step: int) -> None:
        state = {
            "step": step,
            "model": self.trainable.state(),
            "optimizer": self.optimizer.state_dict(),
        }
        write_checkpoint(
            PrunerState(
                **state,
                rows=self.rows,
                held=self.fallback_state,
                reached=self.reached_share,
                regrown=self.regrown,
            ),
            self.file,
        )

    def resume(self) -> int:
        """Load the checkpoint of an earlier run, with its rows, and return the number of
        its steps.
        """
        checkpoint = read_checkpoint(
            PrunerState, self.file, next(self.trainable.model.parameters()).device
        )
        if checkpoint is None:
            return 0
        self.trainable.load_state(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.fallback_state, self.reached_share, self.regrown = (
            checkpoint.held,
            checkpoint.reached,
            checkpoint.regrown,
        )
        self.rows.extend(checkpoint.rows)
        for row in checkpoint.rows:
            self.context.stream(curve_rows(row))
        self.dense = Quality(checkpoint.rows[0].quality_name, checkpoint.rows[0].quality)
        self.context.notes.append(resumed_note(checkpoint.step, self.config.steps))
        return checkpoint.step

    # --- what is paid for -------------------------------------------------------------------------

    def loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        """Weighted losses of labels and teacher, and the sparsity penalty."""
        config, total = self.config, self.penalty()
        if config.distill_weight < 1:
            total = total + (1 - config.distill_weight) * label_loss(
                logits, batch.targets.to(logits.device)
            )
        if config.distill_weight > 0:
            total = total + config.distill_weight * teacher_loss(
                logits, self.teacher_logits(batch, logits.device), config.temperature
            )
        return total

    def penalty(self) -> torch.Tensor | float:
        modules = [
            self.trainable.model.get_submodule(layer.name) for layer in self.trainable.layers
        ]
        match self.config.regularizer:
            case "l1":
                return self.config.strength * l1_norm(module.weight for module in modules)
            case "l0":
                return self.config.strength * sum(
                    gates_of(module).expected_open() for module in modules
                )
            case _:
                return 0.0

    def teacher_logits(self, batch: EncodedExamples, device: torch.device) -> torch.Tensor:
        """Outputs of the original model."""
        teacher = self.trainable.original.model
        with evaluation_mode(teacher, inference=False), keep_unpacked(teacher):
            return batch_logits(teacher, batch, device)


def curve_rows(row: ScheduleRow) -> list[CurveRow]:
    """Report and record the current state."""
    return [
        CurveRow(row.step, "gradual", "zero", row.sparsity),
        CurveRow(row.step, "gradual", row.quality_name, row.quality),
    ]


def regrown_share(trainable: TrainableModel, before: dict[str, torch.Tensor]) -> float:
    """Share of the remaining weights that was pruned before."""
    masks = {name: trainable.mask(name) for name in before}
    back = sum(int((mask & ~before[name]).sum()) for name, mask in masks.items())
    return back / max(1, sum(int(mask.sum()) for mask in masks.values()))
