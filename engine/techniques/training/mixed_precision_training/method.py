"""Mixed-precision training (Micikevicius et al. 2018, arXiv:1710.03740) compared with float32 and
16-bit weights, on the same examples.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator
from torch import nn

from engine.errors import PlainError, option_name
from engine.events import PrecisionEvent
from engine.models.layers import Layer
from engine.models.loaded_model import device_and_dtype
from engine.results.schema.tables import CurveRow
from engine.runtime.threads import threads_to_train
from engine.step.layer_swap import LayerSwap
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.step.trained_weights import TrainedWeights
from engine.techniques.hooks import compress, meta_tensor, plan, storage_plan, train_weights
from engine.techniques.training.mixed_precision_training.config import (
    MixedPrecisionTraining,
    Variant,
)
from engine.tensors.weights import DenseWeight, StoredWeight
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
from engine.training.accelerated import Float16Accelerator, accelerator_for
from engine.training.checkpoint import (
    SavedState,
    State,
    checkpoint_file,
    read_checkpoint,
    resumed_note,
    write_checkpoint,
)
from engine.training.loop import Diverged, batch_logits
from engine.training.losses import label_loss

CASTS: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float16 with loss scaling": torch.float16,
}
FIRST_SCALE = 65536.0


class LayerTraining(MixedPrecisionTraining):
    """Setting of one layer."""

    own: str = "float32"  # dtype of its weights in the file


@plan.register
def plan_mixed_precision_training(
    config: MixedPrecisionTraining, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, LayerTraining]:
    return {
        layer.name: LayerTraining(**config.model_dump() | {"own": layer.dtype}) for layer in layers
    }


def layer_dtype(config: MixedPrecisionTraining) -> torch.dtype:
    return getattr(torch, config.own if isinstance(config, LayerTraining) else "float32")


@compress.register
def compress_mixed_precision_training(
    config: MixedPrecisionTraining, weight: torch.Tensor, stats: None = None
) -> StoredWeight:
    """Return the layer unchanged in a what-if on one layer, because the result requires
    training.
    """
    return DenseWeight(tuple(weight.shape), weight.to(layer_dtype(config)))


@storage_plan.register
def storage_plan_mixed_precision_training(
    config: MixedPrecisionTraining, shape: tuple[int, int]
) -> StoredWeight:
    return DenseWeight(shape, meta_tensor(*shape, dtype=layer_dtype(config)))


@train_weights.register
def train_weights_mixed_precision_training(
    config: MixedPrecisionTraining, context: RunContext, technique_input: TechniqueInput
) -> TrainedWeights:
    layers = [
        layer for layer in technique_input.original.layers if layer.name in technique_input.targets
    ]
    training_data = load_recipe_training_data(
        context.recipe, context.folder, config.steps * config.batch
    )
    kept, settings, keeps, done = (
        None,
        plan(config, layers),
        technique_input.open_checkpoint_folder(),
        0,
    )
    for number, variant in enumerate(get_args(Variant)):
        trainable = make_trainable(
            context.folder, technique_input.original, layers, device_and_dtype(context.recipe)[0]
        )
        training = PrecisionRun(
            config,
            variant,
            context,
            trainable,
            training_data,
            number,
            checkpoint_file(keeps, variant),
        )
        with threads_to_train(technique_input.original.parameters):
            done += training.load_or_run()
        technique_input.layer_swap.tables.curves.extend(training.rows)
        kept = training if variant == config.keep else kept
    if done:
        context.notes.append(resumed_note(done, config.trainings, "trainings were done"))
    kept.check_finished()
    kept.model.float()
    return TrainedWeights(
        {
            name: compress(setting, kept.trainable.weight(name).cpu())
            for name, setting in settings.items()
        },
        kept.trainable.plain(),
    )


@dataclass(frozen=True, kw_only=True)
class FinishedRun(SavedState):
    """A finished training; without weights if it is only compared."""

    broken: int
    model: State


@dataclass
class PrecisionRun:
    """Training in one of the five variants."""

    config: MixedPrecisionTraining
    variant: str
    context: RunContext
    trainable: TrainableModel
    training_data: TrainingData
    number: int  # number of variants before it
    file: Path | None = None  # file of the finished training
    rows: list[CurveRow] = field(default_factory=list)
    broken: int = 0  # step at which the loss was not finite

    @property
    def model(self) -> nn.Module:
        return self.trainable.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def load_or_run(self) -> bool:
        """Return True if an earlier run has done this part; otherwise it is done now."""
        if earlier := read_checkpoint(FinishedRun, self.file, self.device):
            self.trainable.load_state(earlier.model)
            self.rows, self.broken = earlier.rows, earlier.broken
            return True
        self.run()
        write_checkpoint(
            FinishedRun(
                rows=self.rows,
                broken=self.broken,
                model=self.trainable.state() if self.variant == self.config.keep else {},
            ),
            self.file,
        )
        return False

    def run(self) -> None:
        if self.variant == "bfloat16 weights":
            cast_tensors(self.model, torch.bfloat16)
        training_config = TrainingConfig(
            self.config.steps, self.config.rate, self.config.batch, self.context.recipe.seed
        )
        with suppress(Diverged):
            self.train(training_config)

    def train(self, training_config: TrainingConfig) -> None:
        accelerator, seconds = self.accelerator(), 0.0
        steps = train_steps(
            self.model,
            self.training_data.train,
            training_config,
            self.loss,
            on_note=self.context.notes.append,
            accelerator=accelerator,
        )
        for self.broken in range(1, training_config.steps + 1):
            start, scale = (
                time.perf_counter(),
                accelerator.scaler.get_scale() if self.uses_loss_scaling else 1.0,
            )
            step, loss = next(steps)
            seconds += time.perf_counter() - start
            self.record_step(step, loss, training_config.rate_at(step - 1), scale)
            if step % self.config.look_every == 0 or step == training_config.steps:
                self.evaluate(step, scale, step * training_config.batch / seconds)
        self.broken = 0

    def record_step(self, step: int, loss: float, rate: float, scale: float) -> None:
        done, of = self.number * self.config.steps + step, self.config.trainings * self.config.steps
        event = PrecisionEvent("training", done, of, loss=loss, rate=rate, precision=self.variant)
        self.context.progress(event)
        self.record(
            step,
            {"loss": loss, "rate": rate}
            | ({"loss scale": scale} if self.uses_loss_scaling else {}),
        )

    @property
    def uses_loss_scaling(self) -> bool:
        return self.variant == "float16 with loss scaling"

    def accelerator(self) -> Accelerator:
        if CASTS.get(self.variant) is torch.float16:
            return Float16Accelerator(self.device, FIRST_SCALE, self.uses_loss_scaling)
        return accelerator_for(self.device, half=self.variant == "bfloat16")

    def loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        return label_loss(logits, batch.targets.to(self.device))

    def evaluate(self, step: int, scale: float, pace: float) -> None:
        """Held-out quality, and the share of gradients that the cast rounds to zero; ``pace``:
        examples per second so far.
        """
        quality = held_out_quality(self.model, self.training_data.held_out)
        underflow = (
            {
                "slopes lost": self.underflow_share(
                    self.training_data.train.subset(slice(0, self.config.batch)), scale
                )
            }
            if self.variant in CASTS
            else {}
        )
        self.record(step, {quality.name: quality.value, "examples per second": pace} | underflow)

    def underflow_share(self, batch: EncodedExamples, scale: float) -> float:
        """Share of the gradients that are nonzero in float32 but zero in this precision, for the
        same weights and examples.
        """
        reference, scaled = (
            self.weight_gradients(batch, 1.0),
            self.weight_gradients(batch, scale, CASTS[self.variant]),
        )
        nonzero = sum(int(gradient.count_nonzero()) for gradient in reference)
        return sum(
            int(((gradient != 0) & (scaled_gradient == 0)).sum())
            for gradient, scaled_gradient in zip(reference, scaled, strict=True)
        ) / max(1, nonzero)

    def weight_gradients(
        self, batch: EncodedExamples, scale: float, cast: torch.dtype | None = None
    ) -> list[torch.Tensor]:
        """Gradients of the layers' weights, times ``scale``."""
        weights = [self.model.get_submodule(layer.name).weight for layer in self.trainable.layers]
        with torch.inference_mode(False), torch.enable_grad():
            with torch.autocast(self.device.type, cast, enabled=cast is not None):
                loss = self.loss(batch_logits(self.model, batch, self.device), batch)
            return list(
                torch.autograd.grad(
                    loss * scale, weights, allow_unused=True, materialize_grads=True
                )
            )

    def record(self, step: int, values: dict[str, float]) -> None:
        rows = [CurveRow(step, self.variant, name, value) for name, value in values.items()]
        self.rows.extend(rows)
        self.context.stream(rows)

    def check_finished(self) -> None:
        if self.broken:
            raise PlainError(
                f"In {self.variant} the loss became NaN or infinite at step {self.broken}; "
                f"lower {option_name(self.config, 'rate')}, or keep another precision."
            )


def cast_tensors(model: nn.Module, dtype: torch.dtype) -> None:
    """All tensors of the file, without computed ones such as rotary angles."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                buffer.data = buffer.data.to(dtype)
