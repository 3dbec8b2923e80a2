"""Context of a run for all its stages, and the table rows that they add."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby

import pandas as pd
from torch import nn

from engine.config.technique import Technique
from engine.errors import Cancelled
from engine.evaluation import Measured, evaluate
from engine.events import EVALUATION, ProgressEvent, Report
from engine.models.loaded_model import compute_place
from engine.models.loading import Folder
from engine.models.packed_modules import dense_bytes, unpacked_once
from engine.recipe import Recipe
from engine.recipe.tasks import by_split
from engine.results.schema.tables import ROWS, CurveRow, LayerRow, Tables, table
from engine.step.early_end import EarlyEnd, PruningEnd, TicketsEnd

# bytes: a smaller model is not unpacked again for each batch that it is measured on
HELD_DENSE = 256 * 2**20


@dataclass(frozen=True)
class Bench:
    """Context of a run for all its stages."""

    recipe: Recipe
    folder: Folder
    report: Report = lambda event: None
    cancelled: Callable[[], bool] = lambda: False
    step: int = 0  # which of the recipe's is being done
    notes: list[str] = field(default_factory=list)  # what a reader of the numbers should know
    # trainings that the user stopped: their progress is kept, and the run continues
    ended_early: list[EarlyEnd | PruningEnd | TicketsEnd] = field(default_factory=list)
    stream: Callable[[list[CurveRow]], None] = lambda rows: None  # to whoever watches a training

    @property
    def how(self) -> Technique:
        return self.recipe.steps[self.step]

    @property
    def keeps_zeros(self) -> bool:
        """Return True if an earlier step has set weights to zero, which this one must preserve."""
        return any(before.leaves == "zeros" for before in self.recipe.steps[: self.step])

    @property
    def stops(self) -> bool:
        """Return True if the user asked to stop and no training has ended for it."""
        return self.cancelled() and not self.ended_early

    def progress(self, event: ProgressEvent) -> None:
        """Report, and stop here if the user asked to."""
        self.tell(event)
        if self.stops:
            raise Cancelled(
                "The run was canceled before it finished; nothing was kept. Run it again at "
                "any time."
            )

    def tell(self, event: ProgressEvent) -> None:
        """Report, with the number of the step in a recipe of several."""
        steps = len(self.recipe.steps)
        self.report(replace(event, step=self.step + 1, steps=steps) if steps > 1 else event)

    @property
    def by_split(self) -> dict[str, "Bench"]:
        """For each split that quality is measured on, with that as the recipe's own."""
        return {
            split: replace(self, recipe=self.recipe.model_copy(update={"task": task}))
            for split, task in by_split(self.recipe.task).items()
        }

    def qualities(
        self, model: nn.Module, folder: Folder, event: ProgressEvent
    ) -> dict[str, Measured]:
        """In every split."""
        return {
            split: bench.measured(model, folder, event) for split, bench in self.by_split.items()
        }

    def measured(self, model: nn.Module, folder: Folder, event: ProgressEvent) -> Measured:
        """In the split that the run is judged by. ``event`` names the measurement."""
        device, _ = compute_place(self.recipe)

        def report(inner: ProgressEvent) -> None:
            counted = replace(event, done=inner.done, total=inner.total)
            self.report(counted if inner.stage in EVALUATION else inner)

        with unpacked_once(model) if dense_bytes(model) <= HELD_DENSE else nullcontext():
            return evaluate(self.recipe.task, model, folder, device, report, lambda: self.stops)


@dataclass
class Rows:
    """Table rows as they come in, layer by layer."""

    layers: list = field(default_factory=list)
    channels: list = field(default_factory=list)  # a table a layer
    histograms: list = field(default_factory=list)
    levels: list = field(default_factory=list)
    ledger: list = field(default_factory=list)
    samples: list = field(default_factory=list)
    searches: list = field(default_factory=list)
    inputs: list = field(default_factory=list)  # a table a layer
    surfaces: list = field(default_factory=list)  # a table an input
    sensitivity: list = field(default_factory=list)
    salience: list = field(default_factory=list)
    latency: list = field(default_factory=list)
    storage: list = field(default_factory=list)
    importance: list = field(default_factory=list)
    masks: list = field(default_factory=list)  # a table a layer
    structures: list = field(default_factory=list)
    ranks: list = field(default_factory=list)
    singular: list = field(default_factory=list)  # a table a layer
    schedule: list = field(default_factory=list)
    lottery: list = field(default_factory=list)
    curves: list = field(default_factory=list)
    written: list = field(default_factory=list)
    stages: list = field(default_factory=list)
    similarity: list = field(default_factory=list)
    verdicts: list = field(default_factory=list)
    mistakes: list = field(default_factory=list)

    def tables(self) -> Tables:
        return Tables(**{name: whole(getattr(self, name), row) for name, row in ROWS.items()})

    @classmethod
    def of(cls, tables: Tables) -> "Rows":
        """Layers as rows again, the others as tables."""
        layers = [LayerRow(**row) for row in tables.layers.to_dict("records")]
        return cls(
            layers=layers,
            **{name: some(getattr(tables, name)) for name in ROWS if name != "layers"},
        )

    def add(self, other: "Rows") -> None:
        for name in ROWS:
            getattr(self, name).extend(getattr(other, name))

    def followed_by(self, other: "Rows") -> "Rows":
        """Merge the rows of two steps: the later one's notes, and for each table without rows in
        the later step the earlier one's rows.
        """
        return Rows(**{name: getattr(other, name) or getattr(self, name) for name in ROWS})


def some(frame: pd.DataFrame) -> list[pd.DataFrame]:
    return [] if frame.empty else [frame]


def whole(rows: list, row: type) -> pd.DataFrame:
    """One table of rows and tables, in their order."""
    parts = [
        (framed, list(part))
        for framed, part in groupby(rows, key=lambda each: isinstance(each, pd.DataFrame))
    ]
    frames = [frame for framed, part in parts for frame in (part if framed else [table(part, row)])]
    return pd.concat(frames, ignore_index=True) if frames else table((), row)
