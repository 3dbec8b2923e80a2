"""Explanation of each technique, by its type; by default a few weights that share a scale,
before and after.

Bounded for layers of any size: what is left out is said in ``Lesson.part``.
"""

from functools import singledispatch
from typing import Any

import pandas as pd
import torch

from engine.config.technique import Technique
from engine.interactive.inspect_weight import Found, column_factors, found
from engine.interactive.layer_preview import Look
from engine.measurement.error import ratio
from engine.results.schema.explanations import (
    BitsRow,
    CriterionRow,
    GroupRow,
    Lesson,
    OutlierRow,
    ReachRow,
    ScaledRow,
)
from engine.results.schema.tables import LevelRow, table
from engine.techniques.implementations import compress
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.awq.config import AWQ
from engine.techniques.quantization.llm_int8.config import LLMInt8
from engine.techniques.quantization.mixed_precision.config import MixedPrecision
from engine.techniques.quantization.salience.config import AWQSalience
from engine.techniques.quantization.salience.method import KEPT_BY, SCALED_SHARE, salient

COLUMNS = 96  # of a layer's inputs that are shown
ROWS = 48
DOTS = 1024
WEIGHTS = 1 << 18  # rounded again and again, at each number of bits
EVERY_BITS = range(2, 9)


@singledispatch
def picture(asked: Technique, look: Look) -> Lesson:
    """A few weights on their grid: those around the middle of the layer."""
    row, column = (size // 2 for size in look.weight.shape)
    seen, dense = found(look.stored, row, column), look.stored.dense() / look.scales
    group = group_table(look, seen, dense, None)
    levels = group.stored.unique() if seen.levels is None else seen.levels.tolist()
    last = int(seen.columns[-1])
    part = (
        f"{len(group)} weights, from row {int(seen.rows[0])}, column {int(seen.columns[0])} to "
        f"row {int(seen.rows[-1])}, column {last}"
    )
    return Lesson(
        GroupRow,
        group,
        table((LevelRow(look.part.name, value) for value in levels), LevelRow),
        part,
    )


@picture.register
def picture_awq(asked: AWQ, look: Look) -> Lesson:
    """The column behind the strongest input."""
    column = int(look.seen.abs_mean.argmax())
    factor, weight = look.scales[column], look.weight[:ROWS]
    without = compress(asked.rounding(), weight).dense()[:, column]
    within = look.stored.dense()[:ROWS, column] / factor
    original = weight[:, column]
    rows = frame(
        ScaledRow,
        row=torch.arange(len(weight)),
        column=column,
        factor=factor.item(),
        original=original,
        scaled=original * factor,
        error_without=without - original,
        error_with=within - original,
    )
    return Lesson(
        ScaledRow,
        rows,
        no_levels(),
        part_of("output rows", len(rows), len(look.weight)) + f" of column {column}",
    )


@picture.register
def picture_activations(asked: Activations, look: Look) -> Lesson:
    """Show the ranges of inputs and weights before and after; also for SmoothQuant."""
    vectors = look.seen.sample_vectors()
    before, after = vectors.abs().amax(0), look.stored.received(vectors / look.scales).abs().amax(0)
    strongest = before.topk(min(COLUMNS, len(before))).indices
    reach, stored = look.weight.abs().amax(0), look.stored.dense().abs().amax(0)
    columns = {
        "input_before": before,
        "input_after": after,
        "weight_before": reach,
        "weight_after": stored,
    }
    rows = frame(
        ReachRow, column=strongest, **{name: values[strongest] for name, values in columns.items()}
    )
    return Lesson(
        ReachRow,
        rows,
        no_levels(),
        part_of("input columns", len(rows), len(before)) + ", the strongest inputs first",
    )


@picture.register
def picture_llm_int8(asked: LLMInt8, look: Look) -> Lesson:
    largest = look.seen.abs_max
    strongest = largest.topk(min(COLUMNS, len(largest))).indices
    apart = torch.isin(strongest, look.stored.columns.long())
    rows = frame(
        OutlierRow,
        column=strongest,
        largest=largest[strongest],
        threshold=asked.threshold,
        apart=apart,
    )
    return Lesson(
        OutlierRow,
        rows,
        no_levels(),
        part_of("input columns", len(rows), len(largest)) + ", the largest inputs first",
    )


@picture.register
def picture_mixed_precision(asked: MixedPrecision, look: Look) -> Lesson:
    """One layer at every number of bits."""
    weight = look.weight[: max(1, WEIGHTS // look.weight.shape[1])]
    allowed = set(asked.choices) if asked.by == "budget" else {look.how.bits}
    tried = {bits: compress(asked.rounding(bits), weight) for bits in EVERY_BITS}
    rows = [
        BitsRow(b, ratio(s.dense() - weight, weight), 8 * s.nbytes / weight.numel(), b in allowed)
        for b, s in tried.items()
    ]
    return Lesson(
        BitsRow,
        table(rows, BitsRow),
        no_levels(),
        part_of("output rows", len(weight), len(look.weight)),
    )


@picture.register
def picture_awq_salience(asked: AWQSalience, look: Look) -> Lesson:
    """Which 1% of the input channels each way of choosing would keep."""
    weight, in_ = look.weight, look.weight.shape[1]
    kept = {
        by: torch.isin(torch.arange(in_), salient(by, SCALED_SHARE, weight, look.seen, 0))
        for by in KEPT_BY
    }
    shown = torch.arange(0, in_, -(-in_ // DOTS))
    shown = torch.cat([shown, *(chosen.nonzero().flatten() for chosen in kept.values())]).unique()
    columns = {"activation": look.seen.abs_mean, "weight": weight.norm(dim=0)}
    columns |= {
        "by_activations": kept["activations"],
        "by_weights": kept["weights"],
        "at_random": kept["random"],
    }
    rows = frame(
        CriterionRow, column=shown, **{name: values[shown] for name, values in columns.items()}
    )
    return Lesson(CriterionRow, rows, no_levels(), part_of("input columns", len(rows), in_))


def group_table(
    look: Look, seen: Found, dense: torch.Tensor, chosen: tuple[int, int] | None
) -> pd.DataFrame:
    """GroupRow of a weight's neighbors, as they are stored."""
    at, factors = (seen.rows, seen.columns), factors_of(look)[seen.columns]
    asked = (seen.rows == chosen[0]) & (seen.columns == chosen[1]) if chosen else False
    return frame(
        GroupRow,
        row=seen.rows,
        column=seen.columns,
        original=look.weight[at] * factors,
        stored=dense[at] * factors,
        chosen=asked,
    )


def factors_of(look: Look) -> torch.Tensor:
    """Factor of each column in storage.  (in_,)"""
    return column_factors(look.stored) * look.scales


def frame(row: type, /, **columns: Any) -> pd.DataFrame:
    """A row class's table from its columns: tensors of one length, laid flat, or one value for all
    rows.
    """
    flat = {
        name: value.flatten().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in columns.items()
    }
    return pd.DataFrame(flat)[[*row.__dataclass_fields__]]


def no_levels() -> pd.DataFrame:
    return table((), LevelRow)


def part_of(things: str, shown: int, of: int) -> str:
    return f"all {of} {things}" if shown == of else f"{shown} of {of} {things}"
