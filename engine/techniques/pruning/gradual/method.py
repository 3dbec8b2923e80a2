"""Pruning with training in between (Zhu & Gupta 2017, arXiv:1710.01878), with feedback, penalties,
a teacher, and places to stop.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from engine.errors import PlainError
from engine.events import TrainingEvent
from engine.models.loaded_model import compute_place
from engine.models.packed_modules import unpacked_once
from engine.results.schema.tables import NAN, CurveRow
from engine.runtime.threads import threads_to_train
from engine.step.early_end import PruningEnd
from engine.step.pruning_plan import Subject
from engine.step.run_context import Bench
from engine.step.trained_weights import Trained
from engine.techniques.hooks import plan, retrained
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.magnitude_schedule import cut, left_in, size_bytes, stored
from engine.techniques.pruning.gradual.tables import ScheduleRow
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.unstructured.method import left_of
from engine.techniques.pruning.unstructured.scores import importance
from engine.training import (
    Course,
    Exercises,
    Lessons,
    Pupil,
    Quality,
    lessons_of,
    pupil_of,
    quality_of,
    trained,
)
from engine.training.checkpoint import Kept, State, file_in, loaded, saved, went_on
from engine.training.loop import answers, at_rest, optimizer_of
from engine.training.losses import absolute, by_labels, by_teacher
from engine.training.masks import gates_of

MB = 1e6


@importance.register
def importance_gradual(how: Gradual, weight: torch.Tensor, seen: None = None) -> torch.Tensor:
    """Magnitude."""
    return weight.abs()


@retrained.register
def retrained_gradual(how: Gradual, bench: Bench, subject: Subject) -> Trained:
    device, _ = compute_place(bench.recipe)
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    settings = plan(how, layers)
    for layer in layers:
        refuse_emptying(layer.name, left_of(settings[layer.name], layer.matrix_shape))
    pupil = pupil_of(bench.folder, subject.original, layers, device)
    pupil.prepare(how.regrow, gated=how.regularizer == "l0")
    lessons = lessons_of(bench.recipe, bench.folder, how.steps * how.batch)
    course = Course(how.steps, how.rate, how.batch, bench.recipe.seed)
    descent = Descent(
        how, bench, pupil, lessons, course, settings, file_in(subject.keeps(), "gradual")
    )
    try:
        with threads_to_train(subject.original.parameters):
            descent.go()
    finally:
        subject.trial.rows.schedule.extend(descent.rows)
    return Trained(stored(pupil, settings), pupil.plain())


def refuse_emptying(name: str, left: int) -> None:
    if not left:
        raise PlainError(
            f"{name}: No weight would be left; remove a smaller share, or name the layer "
            "under Layers to skip (layers.skip)."
        )


@dataclass(frozen=True, kw_only=True)
class Landing(Kept):
    """State of a pruning schedule after an evaluation, and the cut that followed it. The first row
    contains the original's quality.
    """

    row: ClassVar[type] = ScheduleRow
    step: int  # done
    model: State  # with masks and gates
    optimizer: dict[str, Any]
    held: State | None
    reached: float | None
    regrown: float


@dataclass
class Descent:
    """One model on its way down: cut, train, measure, and on."""

    how: Gradual
    bench: Bench
    pupil: Pupil
    lessons: Lessons
    course: Course
    settings: dict[str, Pruning]
    file: Path | None = None  # where it is kept meanwhile
    rows: list[ScheduleRow] = field(default_factory=list)
    dense: Quality | None = None
    held: State | None = None  # the last state that was good enough
    losses: list[float] = field(default_factory=list)  # since the last row
    reached: float | None = None  # the share at which the target size was reached
    regrown: float = 0.0  # at the last cut

    def go(self) -> None:
        begun = self.taken_up()
        if not begun:
            self.begin()
            self.cut(0, 1)
        for step, loss in trained(
            self.pupil.model,
            self.lessons.train,
            self.course,
            self.loss,
            begun,
            self.optimizer,
            self.bench.notes.append,
        ):
            self.losses.append(loss)
            self.bench.tell(TrainingEvent("training", step, self.how.steps, loss=loss))
            if self.over(step):
                break

    def over(self, step: int) -> bool:
        """Return True if the schedule ends here. After each evaluation it continues with a cut, and
        is stored.
        """
        if self.bench.stops:
            self.end(step)
            return True
        every = min(self.how.prune_every, self.how.steps)
        if step % every and step < self.how.steps:
            return False
        if not self.holds(step):
            self.go_back(step)
            return True
        if step < self.how.steps and self.goes_on(step // every + 1):
            self.cut(step, step // every + 1)
        self.keep(step)
        return False

    def end(self, step: int) -> None:
        """End the schedule as requested: with the model as it is, or as it was when it was last
        good enough. Raises Cancelled if it never was.
        """
        if not self.holds(step):
            if self.held is None:
                self.bench.progress(TrainingEvent("training", step, self.how.steps))
            self.go_back(step)
        self.bench.ended_early.append(
            PruningEnd(step, self.how.steps, self.rows[-1].sparsity, self.how.removed)
        )

    def goes_on(self, number: int) -> bool:
        """Return True if another cut would change anything."""
        return self.how.regrow or (number <= self.how.cuts and self.reached is None)

    def begin(self) -> None:
        """The original's quality, and whether what is asked for can be had at all."""
        self.bench.progress(TrainingEvent("training", 0, self.how.steps))
        self.dense = quality_of(self.pupil.model, self.lessons.held_out)
        if self.how.floor and not self.dense.share_of(self.dense):
            raise PlainError(
                "The original gets none of the held-out examples right, so there is no floor "
                "to keep to; set floor to 0."
            )
        self.refuse_unreachable()
        self.note(0, self.dense, "before")

    def refuse_unreachable(self) -> None:
        least = size_bytes(
            self.pupil,
            self.settings,
            {layer.name: left_of(self.how, layer.matrix_shape) for layer in self.pupil.layers},
        )
        if self.how.target_mb and least > self.how.target_mb * MB:
            raise PlainError(
                f"With {self.how.removed:.0%} removed, the model's file still takes "
                f"{least / MB:.2f} MB, more than target_mb {self.how.target_mb:g}; "
                "raise sparsity, or target_mb."
            )

    def cut(self, step: int, number: int) -> None:
        """Once the size is reached, as much as then; weights may still change places."""
        before = {layer.name: self.pupil.mask(layer.name).clone() for layer in self.pupil.layers}
        share = self.how.share_at(number) if self.reached is None else self.reached
        cut(self.pupil, self.how, share)
        self.regrown = regrown(self.pupil, before)
        event = "cut"
        if self.how.target_mb and self.reached is None and self.size() <= self.how.target_mb * MB:
            self.reached, event = share, "size reached"
        self.note(step, quality_of(self.pupil.model, self.lessons.held_out), event)

    def size(self) -> int:
        return size_bytes(self.pupil, self.settings, left_in(self.pupil))

    def holds(self, step: int) -> bool:
        """Return True if the trained model is good enough; if so, it is kept as a fallback."""
        quality = quality_of(self.pupil.model, self.lessons.held_out)
        good = not self.how.floor or quality.share_of(self.dense) >= self.how.floor
        self.note(step, quality, "trained" if good else "below the floor")
        if good and self.how.floor:
            self.held = self.pupil.state()
        return good

    def go_back(self, step: int) -> None:
        if self.held is None:
            raise PlainError(
                f"Already after the first cut and {step} training steps, quality is below "
                f"{self.how.floor:.0%} of the original's; lower floor, "
                "remove less at once, or train for longer."
            )
        self.pupil.come_back(self.held)
        self.note(step, quality_of(self.pupil.model, self.lessons.held_out), "went back")

    def note(self, step: int, quality: Quality, event: str) -> None:
        left, whole = left_in(self.pupil), sum(layer.parameters for layer in self.pupil.layers)
        loss = sum(self.losses) / len(self.losses) if self.losses else NAN
        size = size_bytes(self.pupil, self.settings, left)
        self.refuse_closed(left)
        self.rows.append(
            ScheduleRow(
                step,
                1 - sum(left.values()) / whole,
                loss,
                quality.name,
                quality.value,
                size,
                self.regrown,
                event,
            )
        )
        self.bench.stream(watched(self.rows[-1]))
        if event != "cut":
            self.losses.clear()

    def refuse_closed(self, left: dict[str, int]) -> None:
        if self.how.regularizer == "l0" and not all(left.values()):
            raise PlainError(
                f"Every gate of {min(left, key=left.get)} has closed; lower strength, which "
                f"is {self.how.strength:g}, or rate."
            )

    # --- kept meanwhile ---------------------------------------------------------------------------

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return optimizer_of(self.pupil.model, self.course)

    def keep(self, step: int) -> None:
        now = {"step": step, "model": self.pupil.state(), "optimizer": self.optimizer.state_dict()}
        saved(
            Landing(
                **now, rows=self.rows, held=self.held, reached=self.reached, regrown=self.regrown
            ),
            self.file,
        )

    def taken_up(self) -> int:
        """The steps that an earlier run has done; its rows are ours."""
        kept = loaded(Landing, self.file, next(self.pupil.model.parameters()).device)
        if kept is None:
            return 0
        self.pupil.come_back(kept.model)
        self.optimizer.load_state_dict(kept.optimizer)
        self.held, self.reached, self.regrown = kept.held, kept.reached, kept.regrown
        self.rows.extend(kept.rows)
        for row in kept.rows:
            self.bench.stream(watched(row))
        self.dense = Quality(kept.rows[0].quality_name, kept.rows[0].quality)
        self.bench.notes.append(went_on(kept.step, self.how.steps))
        return kept.step

    # --- what is paid for -------------------------------------------------------------------------

    def loss(self, logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        """Labels and teacher in their shares, and what zeros are worth."""
        how, total = self.how, self.penalty()
        if how.distill_weight < 1:
            total = total + (1 - how.distill_weight) * by_labels(
                logits, batch.targets.to(logits.device)
            )
        if how.distill_weight > 0:
            total = total + how.distill_weight * by_teacher(
                logits, self.taught(batch, logits.device), how.temperature
            )
        return total

    def penalty(self) -> torch.Tensor | float:
        modules = [self.pupil.model.get_submodule(layer.name) for layer in self.pupil.layers]
        match self.how.regularizer:
            case "l1":
                return self.how.strength * absolute(module.weight for module in modules)
            case "l0":
                return self.how.strength * sum(gates_of(module).open() for module in modules)
            case _:
                return 0.0

    def taught(self, batch: Exercises, device: torch.device) -> torch.Tensor:
        """Outputs of the original model."""
        teacher = self.pupil.original.model
        with at_rest(teacher), unpacked_once(teacher):
            return answers(teacher, batch, device)


def watched(row: ScheduleRow) -> list[CurveRow]:
    """One moment for whoever watches the training."""
    return [
        CurveRow(row.step, "gradual", "zero", row.sparsity),
        CurveRow(row.step, "gradual", row.quality_name, row.quality),
    ]


def regrown(pupil: Pupil, before: dict[str, torch.Tensor]) -> float:
    """Share of the remaining weights that was pruned before."""
    masks = {name: pupil.mask(name) for name in before}
    back = sum(int((mask & ~before[name]).sum()) for name, mask in masks.items())
    return back / max(1, sum(int(mask.sum()) for mask in masks.values()))
