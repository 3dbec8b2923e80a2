"""Context of a run for all its stages."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from torch import nn

from engine.config.technique import Technique
from engine.errors import Cancelled
from engine.evaluation import EvaluationResult, evaluate
from engine.events import EVALUATION, ProgressEvent, Report
from engine.models.loaded_model import device_and_dtype
from engine.models.loading import ModelSource
from engine.models.packed_modules import dense_bytes, keep_unpacked
from engine.recipe import Recipe
from engine.recipe.tasks import tasks_by_split
from engine.results.schema.tables import CurveRow
from engine.step.early_end import EarlyEnd, PruningEnd, TicketsEnd

# bytes: a smaller model is kept unpacked during an evaluation
MAX_UNPACKED_BYTES = 256 * 2**20


@dataclass(frozen=True)
class RunContext:
    """Context of a run for all its stages."""

    recipe: Recipe
    folder: ModelSource
    report: Report = lambda event: None
    cancelled: Callable[[], bool] = lambda: False
    step: int = 0  # current step
    notes: list[str] = field(default_factory=list)  # notes for readers of the results
    # trainings that the user stopped: their progress is kept, and the run continues
    ended_early: list[EarlyEnd | PruningEnd | TicketsEnd] = field(default_factory=list)
    stream: Callable[[list[CurveRow]], None] = lambda rows: None  # receives training curves

    @property
    def config(self) -> Technique:
        return self.recipe.steps[self.step]

    @property
    def keeps_zeros(self) -> bool:
        """Return True if an earlier step has set weights to zero, which this one must preserve."""
        return any(before.produces == "zeros" for before in self.recipe.steps[: self.step])

    @property
    def is_stopping(self) -> bool:
        """Return True if the user asked to stop and no training has ended because of it."""
        return self.cancelled() and not self.ended_early

    def progress(self, event: ProgressEvent) -> None:
        """Report progress, and raise Cancelled if the user asked to stop."""
        self.report_stage(event)
        if self.is_stopping:
            raise Cancelled(
                "The run was canceled before it finished; nothing was kept. Run it again at "
                "any time."
            )

    def report_stage(self, event: ProgressEvent) -> None:
        """Report progress, with the number of the step if the recipe has several."""
        steps = len(self.recipe.steps)
        self.report(replace(event, step=self.step + 1, steps=steps) if steps > 1 else event)

    @property
    def by_split(self) -> dict[str, "RunContext"]:
        """Contexts by evaluated split, each with that split in its recipe."""
        return {
            split: replace(self, recipe=self.recipe.model_copy(update={"task": task}))
            for split, task in tasks_by_split(self.recipe.task).items()
        }

    def evaluate_splits(
        self, model: nn.Module, folder: ModelSource, event: ProgressEvent
    ) -> dict[str, EvaluationResult]:
        """Evaluation results by split."""
        return {
            split: context.evaluate(model, folder, event)
            for split, context in self.by_split.items()
        }

    def evaluate(
        self, model: nn.Module, folder: ModelSource, event: ProgressEvent
    ) -> EvaluationResult:
        """Evaluation in the recipe's main split. ``event`` describes the measurement."""
        device, _ = device_and_dtype(self.recipe)

        def report(inner: ProgressEvent) -> None:
            counted = replace(event, done=inner.done, total=inner.total)
            self.report(counted if inner.stage in EVALUATION else inner)

        with keep_unpacked(model) if dense_bytes(model) <= MAX_UNPACKED_BYTES else nullcontext():
            return evaluate(
                self.recipe.task, model, folder, device, report, lambda: self.is_stopping
            )
