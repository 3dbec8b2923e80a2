"""Answers to live questions, for tests that have a model, a layer and a step as plain data."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from engine.interactive.answers import answer
from engine.queries import (
    ExplanationQuery,
    ForecastQuery,
    LayerQuery,
    ModelQuery,
    PastRun,
    RangesQuery,
    RankPlanQuery,
    SingularValuesQuery,
    SoftTargetsQuery,
    WeightMapQuery,
    WeightQuery,
    WhatIfQuery,
)
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
)

Plain = dict[str, Any]


def recipe_with(model: str, steps: Sequence[Plain], measured: Plain | None = None) -> Recipe:
    return Recipe.from_dict({"model": model, "steps": list(steps), **(measured or {})})


def model_view(model: str) -> ModelView:
    return answer(ModelQuery(model))


def layer_view(model: str, layer: str) -> LayerView:
    return answer(LayerQuery(model, layer))


def forecast(recipe: Recipe | Plain, past: PastRun | None = None) -> Forecast:
    known = recipe if isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
    return answer(ForecastQuery(known, past))


def what_if(
    model: str,
    layer: str,
    step: Plain,
    measured: Plain | None = None,
    earlier: Sequence[Plain] = (),
) -> LayerPreview:
    return answer(WhatIfQuery(recipe_with(model, [*earlier, step], measured), layer))


def ranges(
    model: str,
    layer: str,
    step: Plain,
    measured: Plain | None = None,
    scales: Sequence[float] | None = None,
) -> InputRanges:
    recipe = recipe_with(model, [step], measured)
    return answer(RangesQuery(recipe, layer, None if scales is None else tuple(scales)))


def lesson(model: str, layer: str, step: Plain, measured: Plain | None = None) -> Explanation:
    return answer(ExplanationQuery(recipe_with(model, [step], measured), layer))


def piece(
    model: str,
    layer: str,
    step: Plain,
    measured: Plain | None = None,
    row: int = 0,
    column: int = 0,
) -> WeightMap:
    return answer(WeightMapQuery(recipe_with(model, [step], measured), layer, row, column))


def weight(
    model: str,
    layer: str,
    step: Plain,
    measured: Plain | None = None,
    row: int = 0,
    column: int = 0,
) -> WeightView:
    return answer(WeightQuery(recipe_with(model, [step], measured), layer, row, column))


def singular(model: str, layer: str, step: Plain, measured: Plain | None = None) -> pd.DataFrame:
    return answer(SingularValuesQuery(recipe_with(model, [step], measured), layer))


def planned_ranks(model: str, step: Plain, measured: Plain | None = None) -> PlannedRanks:
    return answer(RankPlanQuery(recipe_with(model, [step], measured)))


def soft_targets(model: str, measured: Plain, example: int, temperature: float) -> SoftTargets:
    return answer(SoftTargetsQuery(recipe_with(model, [], measured), example, temperature))
