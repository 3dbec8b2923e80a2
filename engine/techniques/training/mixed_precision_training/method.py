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

from engine.errors import PlainError
from engine.events import PrecisionEvent
from engine.models.layers import Layer
from engine.models.loaded_model import compute_place
from engine.results.schema.tables import CurveRow
from engine.runtime.threads import threads_to_train
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Subject
from engine.step.run_context import Bench
from engine.step.trained_weights import Trained
from engine.techniques.hooks import blueprint, compress, plan, retrained, sketch
from engine.techniques.training.mixed_precision_training.config import (
    MixedPrecisionTraining,
    Variant,
)
from engine.tensors.weights import Dense, Stored
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
from engine.training.accelerated import Float16, accelerator_for
from engine.training.checkpoint import Kept, State, file_in, loaded, saved, went_on
from engine.training.loop import Diverged, answers
from engine.training.losses import by_labels

CASTS: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float16 with loss scaling": torch.float16,
}
FIRST_SCALE = 65536.0


class Placed(MixedPrecisionTraining):
    """One layer's own setting."""

    own: str = "float32"  # number format of its weights in the file


@plan.register
def plan_mixed_precision_training(
    how: MixedPrecisionTraining, layers: list[Layer], trial: Trial | None = None
) -> dict[str, Placed]:
    return {layer.name: Placed(**how.model_dump() | {"own": layer.dtype}) for layer in layers}


def own_of(how: MixedPrecisionTraining) -> torch.dtype:
    return getattr(torch, how.own if isinstance(how, Placed) else "float32")


@compress.register
def compress_mixed_precision_training(
    how: MixedPrecisionTraining, weight: torch.Tensor, seen: None = None
) -> Stored:
    """Return the layer unchanged in a what-if on one layer, because its result takes training."""
    return Dense(tuple(weight.shape), weight.to(own_of(how)))


@blueprint.register
def blueprint_mixed_precision_training(
    how: MixedPrecisionTraining, shape: tuple[int, int]
) -> Stored:
    return Dense(shape, sketch(*shape, dtype=own_of(how)))


@retrained.register
def retrained_mixed_precision_training(
    how: MixedPrecisionTraining, bench: Bench, subject: Subject
) -> Trained:
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    lessons = lessons_of(bench.recipe, bench.folder, how.steps * how.batch)
    kept, settings, keeps, done = None, plan(how, layers), subject.keeps(), 0
    for number, variant in enumerate(get_args(Variant)):
        pupil = pupil_of(bench.folder, subject.original, layers, compute_place(bench.recipe)[0])
        training = Training(how, variant, bench, pupil, lessons, number, file_in(keeps, variant))
        with threads_to_train(subject.original.parameters):
            done += training.gone()
        subject.trial.rows.curves.extend(training.rows)
        kept = training if variant == how.keep else kept
    if done:
        bench.notes.append(went_on(done, how.trainings, "trainings were done"))
    kept.refuse_broken()
    kept.model.float()
    return Trained(
        {
            name: compress(setting, kept.pupil.weight(name).cpu())
            for name, setting in settings.items()
        },
        kept.pupil.plain(),
    )


@dataclass(frozen=True, kw_only=True)
class Finished(Kept):
    """One of the five, when it has ended. Of those that are only compared, no weights."""

    broken: int
    model: State


@dataclass
class Training:
    """One of the five."""

    how: MixedPrecisionTraining
    variant: str
    bench: Bench
    pupil: Pupil
    lessons: Lessons
    number: int  # how many come before it
    file: Path | None = None  # where it is kept when it has ended
    rows: list[CurveRow] = field(default_factory=list)
    broken: int = 0  # the step at which the loss was no number any more

    @property
    def model(self) -> nn.Module:
        return self.pupil.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def gone(self) -> bool:
        """Return True if an earlier run has done this part; otherwise it is done now."""
        if earlier := loaded(Finished, self.file, self.device):
            self.pupil.come_back(earlier.model)
            self.rows, self.broken = earlier.rows, earlier.broken
            return True
        self.go()
        saved(
            Finished(
                rows=self.rows,
                broken=self.broken,
                model=self.pupil.state() if self.variant == self.how.keep else {},
            ),
            self.file,
        )
        return False

    def go(self) -> None:
        if self.variant == "bfloat16 weights":
            shorten(self.model, torch.bfloat16)
        course = Course(self.how.steps, self.how.rate, self.how.batch, self.bench.recipe.seed)
        with suppress(Diverged):
            self.learn(course)

    def learn(self, course: Course) -> None:
        accelerator, seconds = self.accelerator(), 0.0
        steps = trained(
            self.model,
            self.lessons.train,
            course,
            self.loss,
            said=self.bench.notes.append,
            accelerator=accelerator,
        )
        for self.broken in range(1, course.steps + 1):
            began, scale = (
                time.perf_counter(),
                accelerator.scaler.get_scale() if self.scales else 1.0,
            )
            step, loss = next(steps)
            seconds += time.perf_counter() - began
            self.tell(step, loss, course.rate_at(step - 1), scale)
            if step % self.how.look_every == 0 or step == course.steps:
                self.look(step, scale, step * course.batch / seconds)
        self.broken = 0

    def tell(self, step: int, loss: float, rate: float, scale: float) -> None:
        done, of = self.number * self.how.steps + step, self.how.trainings * self.how.steps
        event = PrecisionEvent("training", done, of, loss=loss, rate=rate, precision=self.variant)
        self.bench.progress(event)
        self.note(
            step, {"loss": loss, "rate": rate} | ({"loss scale": scale} if self.scales else {})
        )

    @property
    def scales(self) -> bool:
        return self.variant == "float16 with loss scaling"

    def accelerator(self) -> Accelerator:
        if CASTS.get(self.variant) is torch.float16:
            return Float16(self.device, FIRST_SCALE, self.scales)
        return accelerator_for(self.device, half=self.variant == "bfloat16")

    def loss(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        return by_labels(logits, batch.targets.to(self.device))

    def look(self, step: int, scale: float, pace: float) -> None:
        """Held-out quality, and the gradients that casts lose; ``pace``: examples a second so
        far.
        """
        quality = quality_of(self.model, self.lessons.held_out)
        lost = (
            {"slopes lost": self.lost(self.lessons.train.some(slice(0, self.how.batch)), scale)}
            if self.variant in CASTS
            else {}
        )
        self.note(step, {quality.name: quality.value, "examples per second": pace} | lost)

    def lost(self, batch: Exercises, scale: float) -> float:
        """Share of the gradients that are nonzero in float32 but zero in this precision, for the
        same weights and examples.
        """
        whole, short = self.slopes(batch, 1.0), self.slopes(batch, scale, CASTS[self.variant])
        due = sum(int(each.count_nonzero()) for each in whole)
        return sum(
            int(((each != 0) & (mine == 0)).sum()) for each, mine in zip(whole, short, strict=True)
        ) / max(1, due)

    def slopes(
        self, batch: Exercises, scale: float, cast: torch.dtype | None = None
    ) -> list[torch.Tensor]:
        """Gradients of the layers' weights, times ``scale``."""
        weights = [self.model.get_submodule(layer.name).weight for layer in self.pupil.layers]
        with torch.inference_mode(False), torch.enable_grad():
            with torch.autocast(self.device.type, cast, enabled=cast is not None):
                loss = self.loss(answers(self.model, batch, self.device), batch)
            return list(
                torch.autograd.grad(
                    loss * scale, weights, allow_unused=True, materialize_grads=True
                )
            )

    def note(self, step: int, values: dict[str, float]) -> None:
        rows = [CurveRow(step, self.variant, name, value) for name, value in values.items()]
        self.rows.extend(rows)
        self.bench.stream(rows)

    def refuse_broken(self) -> None:
        if self.broken:
            raise PlainError(
                f"In {self.variant} the loss was no number any more at step {self.broken}; "
                "lower rate, or keep another precision."
            )


def shorten(model: nn.Module, dtype: torch.dtype) -> None:
    """Everything that a file holds; what is computed, such as rotary angles, stays."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                buffer.data = buffer.data.to(dtype)
