"""Explanations of every technique on a part of one layer."""

from dataclasses import fields

import pandas as pd
import pytest

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.results.schema.explanations import SIDE, GroupRow, MapRow
from engine.techniques.low_rank.tables import TileRow
from engine.techniques.pruning.tables import RemovedRow
from engine.techniques.quantization.activations.tables import ReachRow
from engine.techniques.quantization.awq.tables import ScaledRow
from engine.techniques.quantization.gptq.explain import PLACES, ROWS
from engine.techniques.quantization.gptq.tables import ReplayRow
from engine.techniques.quantization.llm_int8.tables import OutlierRow
from engine.techniques.quantization.mixed_precision.tables import BitsRow
from engine.techniques.quantization.salience.tables import CriterionRow
from tests.answers import lesson, piece, weight
from tests.cases import for_each
from tests.explained_steps import STEPS, any_step, each_architecture, look_at_hand

SHOWN = {
    "gptq": ReplayRow,
    "awq": ScaledRow,
    "activations": ReachRow,
    "smoothquant": ReachRow,
    "llm-int8": OutlierRow,
    "mixed-precision": BitsRow,
    "awq-salience": CriterionRow,
    **dict.fromkeys(("magnitude", "wanda", "sparsegpt", "taylor"), RemovedRow),
    **dict.fromkeys(("svd", "low-rank-correction"), TileRow),
}


def names_of(row: type) -> list[str]:
    return [field.name for field in fields(row)]


@any_step
def test_a_piece_is_a_part_of_the_layer_before_and_after(step, questions):
    question = questions("llama", step)
    look, some = look_at_hand(**question), piece(**question, row=40, column=64)
    out, in_ = look.weight.shape
    assert some.shape == (out, in_) and list(some.table.columns) == names_of(MapRow)
    assert (
        len(some.table) == (out - 40) * SIDE
        and set(some.table.row) == set(range(40, out))
        and set(some.table.column) == set(range(64, 64 + SIDE))
    )
    last = some.table.iloc[-1]
    assert (
        last.original == look.weight[out - 1, 64 + SIDE - 1]
        and last.stored == (look.stored.to_dense() / look.scales)[out - 1, 64 + SIDE - 1]
    )


@for_each(("row", "column"), [(48, 0), (0, 172), (-1, 0), (0, -1)])
def test_a_place_outside_the_layer_is_refused_in_a_sentence(row, column, questions):
    for ask in (piece, weight):
        with pytest.raises(
            PlainError,
            match=(
                rf"^Row {row}, column {column} is outside the layer: rows go from 0 to 47, "
                r"columns from 0 to 171\.$"
            ),
        ):
            ask(**questions("llama", "rounding"), row=row, column=column)


# --- each technique at work -----------------------------------------------------------------------


@any_step
@each_architecture
def test_every_technique_has_a_small_explanation_of_its_kind(architecture, step, questions):
    shown = lesson(**questions(architecture, step))
    assert shown.row is SHOWN.get(STEPS[step]["technique"], GroupRow) and list(
        shown.table.columns
    ) == names_of(shown.row)
    assert 0 < len(shown.table) <= ROWS * PLACES * (PLACES + 1) and any(
        letter.isdigit() for letter in shown.part
    )
    numbers = shown.table.drop(columns="code", errors="ignore").select_dtypes("number")
    assert pd.notna(numbers).all(axis=None)


def test_every_technique_of_the_catalog_is_tried_here():
    assert {step["technique"] for step in STEPS.values()} >= set(SHOWN) and set(SHOWN) <= set(
        TECHNIQUES
    )
