"""Live questions to a worker, each a frozen dataclass with a typed answer.

They are answered by the handlers in ``engine.interactive``. Importing this module imports neither
torch nor Streamlit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import pandas as pd
from pydantic import BaseModel

from engine.recipe import Recipe
from engine.results.schema.explanations import Explanation, WeightMap, WeightView
from engine.results.schema.query_results import (
    Forecast,
    InputRanges,
    LayerPreview,
    LayerView,
    ModelView,
    PlannedRanks,
    SoftTargets,
    WorkerFacts,
)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Query(Generic[Answer]):
    """A question. Equal ones have equal answers while the files they name do not change."""

    @property
    def about(self) -> tuple[str, str]:
        """Model and layer, whose data the worker keeps in memory; empty if there is none."""
        return "", ""

    def plain(self) -> dict[str, Any]:
        """Fields as plain data, from which keys of cached answers are made."""
        return as_plain(self)


@dataclass(frozen=True)
class WorkerQuery(Query[WorkerFacts]):
    """Device and process of the worker that answers."""


@dataclass(frozen=True)
class ModelQuery(Query[ModelView]):
    """A model as it is."""

    model: str

    @property
    def about(self) -> tuple[str, str]:
        return self.model, ""


@dataclass(frozen=True)
class LayerQuery(Query[LayerView]):
    """One layer as it is."""

    model: str
    layer: str

    @property
    def about(self) -> tuple[str, str]:
        return self.model, self.layer


@dataclass(frozen=True)
class RecipeQuery(Query[Answer]):
    """A question about a recipe."""

    recipe: Recipe

    @property
    def about(self) -> tuple[str, str]:
        return self.recipe.model, ""


@dataclass(frozen=True)
class StepQuery(RecipeQuery[Answer]):
    """A question about what the recipe's last step does to one layer."""

    layer: str

    @property
    def about(self) -> tuple[str, str]:
        return self.recipe.model, self.layer


@dataclass(frozen=True)
class WhatIfQuery(StepQuery[LayerPreview]):
    """Effect of the recipe on the layer; very large layers are compared on their first rows."""


@dataclass(frozen=True)
class RangesQuery(StepQuery[InputRanges]):
    """Range that each observer would choose for the layer's inputs.

    ``scales``, one for each input channel, are those by which a run divided the inputs; without
    them the technique computes its own.
    """

    scales: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ExplanationQuery(StepQuery[Explanation]):
    """Explanation of the technique on the layer."""


@dataclass(frozen=True)
class WeightMapQuery(StepQuery[WeightMap]):
    """Square of weights from a row and column on, before and after."""

    row: int = 0
    column: int = 0


@dataclass(frozen=True)
class WeightQuery(StepQuery[WeightView]):
    """How one weight is stored."""

    row: int = 0
    column: int = 0


@dataclass(frozen=True)
class SingularValuesQuery(StepQuery[pd.DataFrame]):
    """SingularRow of the layer, before and after whitening; none of a convolution in a chain."""


@dataclass(frozen=True)
class MaskOverlapQuery(StepQuery[pd.DataFrame]):
    """OverlapRow of every two pruning methods that can do what the step does."""


@dataclass(frozen=True)
class RankPlanQuery(RecipeQuery[PlannedRanks]):
    """Rank of each layer under an SVD step."""


@dataclass(frozen=True)
class SoftTargetsQuery(RecipeQuery[SoftTargets]):
    """A teacher's predictions for one example of the task's data, counted from 0."""

    example: int
    temperature: float = 1.0


@dataclass(frozen=True)
class PastRun:
    """Time and memory that an earlier run took on this machine."""

    recipe: Recipe
    seconds: float
    peak_rss_bytes: float


@dataclass(frozen=True)
class ForecastQuery(RecipeQuery[Forecast]):
    """Size, time and memory of a run; ``past`` is the latest run like it, if there is one."""

    past: PastRun | None = None


def as_plain(value: Any) -> Any:
    """Dataclasses and configs as dictionaries, sequences as lists."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_plain(item) for item in value]
    return value
