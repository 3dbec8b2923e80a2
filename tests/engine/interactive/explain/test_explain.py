"""Lessons show the method's own numbers: the replay ends where GPTQ ends, and single weights are
what the model computes with.
"""

from dataclasses import fields

import pandas as pd
import pytest
import torch

from engine.calibration import InputStats
from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.interactive import layer_preview
from engine.interactive.inspect_weight import NEIGHBOURS, column_factors, weight_location
from engine.interactive.layer_preview import cached_preview
from engine.interactive.model_cache import CACHE, Recent
from engine.results.schema.explanations import (
    SIDE,
    BitsRow,
    CriterionRow,
    GroupRow,
    MapRow,
    OutlierRow,
    ReachRow,
    RemovedRow,
    ReplayRow,
    ScaledRow,
    TileRow,
)
from engine.techniques.implementations import compress
from engine.techniques.quantization.activations.explain import COLUMNS
from engine.techniques.quantization.gptq.config import GPTQ
from engine.techniques.quantization.gptq.explain import PLACES, ROWS, Replay
from engine.tensors.packing import unpack_bits
from engine.tensors.weights import DenseWeight
from tests.answers import lesson, piece, recipe_with, weight
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.techniques import EVERY, technique_id
from tests.tiny import ARCHITECTURES, tiny

CPU = torch.device("cpu")
LAYERS = {
    "llama": "model.layers.1.mlp.down_proj",
    "llama-tied": "model.layers.0.self_attn.k_proj",
    "qwen2": "model.layers.0.self_attn.v_proj",
    "gpt2": "transformer.h.0.mlp.c_fc",
    "opt": "model.decoder.layers.0.fc2",
    "bert": "bert.encoder.layer.0.output.dense",
    "resnet": "resnet.encoder.stages.1.layers.0.layer.1.convolution",
}
STEPS = {
    "rounding": {"technique": "round-to-nearest"},
    "rounding-tensor": {
        "technique": "round-to-nearest",
        "bits": 3,
        "granularity": "tensor",
        "scheme": "asymmetric",
    },
    "nf4": {"technique": "bitsandbytes"},
    "fp4-double": {"technique": "bitsandbytes", "format": "fp4", "double_quantization": True},
    "int8": {"technique": "bitsandbytes", "format": "int8"},
    "gptq": {"technique": "gptq"},
    "gptq-static": {"technique": "gptq", "bits": 3, "activation_order": True, "group_size": 48},
    "gptq-ordered": {
        "technique": "gptq",
        "activation_order": True,
        "static_groups": False,
        "scheme": "asymmetric",
        "group_size": 48,
    },
    "awq": {"technique": "awq", "bits": 3},
    "static": {"technique": "activations"},
    "smoothquant": {"technique": "smoothquant"},
    "llm-int8": {"technique": "llm-int8", "threshold": 2},
    "mixed-precision": {"technique": "mixed-precision"},
    "awq-salience": {"technique": "awq-salience", "group_size": 32},
    "magnitude": {"technique": "magnitude"},
    "wanda": {"technique": "wanda"},
    "sparsegpt": {"technique": "sparsegpt"},
    "taylor": {"technique": "taylor", "storage": "csr"},
    "svd": {"technique": "svd", "kept": 0.5},
    "svd-randomized": {"technique": "svd", "whitening": "none", "solver": "randomized"},
    "low-rank-correction": {"technique": "low-rank-correction", "rank": 2},
}
REPLAYED = [name for name in STEPS if name.startswith("gptq")]
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
WITHOUT_CODES = {
    name for name, config in TECHNIQUES.items() if config.family in ("pruning", "low-rank")
}
any_step = for_each("step", STEPS)
each_architecture = for_each("architecture", ARCHITECTURES)


def look_at_hand(model, layer, step, measured):
    return cached_preview(recipe_with(model, [step], measured), layer)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions about a layer of each architecture, with data of its own."""
    folders = {name: tiny(name, tmp_path_factory.mktemp(name)) for name in ARCHITECTURES}
    data = tmp_path_factory.mktemp("data")

    def question(architecture, step):
        recipe = recipe_for(architecture, folders[architecture], data / architecture, STEPS[step])
        measured = recipe.model_dump(mode="json", include={"task", "calibration"})
        return {
            "model": str(folders[architecture]),
            "layer": LAYERS[architecture],
            "step": STEPS[step],
            "measured": measured,
        }

    return question


@pytest.fixture(scope="module", autouse=True)
def all_at_hand():
    """Each layer is compressed once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for recent in (CACHE.previews, CACHE.models, CACHE.first_rows_kept, CACHE.statistics):
            patch.setattr(recent, "capacity", 10**12)
        yield
    CACHE.clear()


@pytest.fixture(autouse=True)
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def names_of(row: type) -> list[str]:
    return [field.name for field in fields(row)]


# --- GPTQ, column by column -----------------------------------------------------------------------


@for_each("step", REPLAYED)
@each_architecture
def test_the_replay_ends_with_exactly_the_codes_that_gptq_gives(architecture, step, questions):
    compressed = look_at_hand(**questions(architecture, step))
    few = compress(compressed.config, compressed.weight[:ROWS], compressed.stats)
    codes = unpack_bits(few.codes, few.bits, few.shape[0] * few.shape[1]).view(few.shape)
    replay = Replay.of(compressed.config, compressed.weight[:ROWS].contiguous(), compressed.stats)
    last = replay.after(len(replay.places))
    stored = (
        codes[:, : len(replay.places)]
        if few.order is not None
        else codes[:, replay.order][:, : len(replay.places)]
    )
    assert torch.equal(torch.tensor(last.code.to_numpy()).view(stored.shape), stored.float())
    assert torch.equal(few.to_dense(), compressed.stored.to_dense()[:ROWS]), (
        "a few rows are rounded as all are"
    )


@for_each("step", REPLAYED)
@each_architecture
def test_rounded_columns_are_on_the_grid_and_waiting_ones_have_moved(architecture, step, questions):
    question = questions(architecture, step)
    table, dense = lesson(**question).table, look_at_hand(**question).stored.to_dense()
    rounded = table[table.code.notna()]
    assert (rounded.place < rounded.step).all() and (
        table[table.code.isna()].place >= table[table.code.isna()].step
    ).all()
    expected = dense[torch.tensor(rounded.row.to_numpy()), torch.tensor(rounded.column.to_numpy())]
    torch.testing.assert_close(
        torch.tensor(rounded.gptq.to_numpy()), expected, rtol=1e-4, atol=1e-6
    )
    waiting = table[table.code.isna()]
    assert (waiting.plain == waiting.original).all() and (
        waiting.query("step > 0").gptq != waiting.query("step > 0").original
    ).any()


def test_what_a_column_holds_when_its_turn_comes_is_what_the_method_rounded():
    rows = torch.randn(400, 86, generator=torch.Generator().manual_seed(0)) @ torch.randn(
        86, 172, generator=torch.Generator().manual_seed(1)
    )
    seen = InputStats(172, CPU)
    seen.add(rows)
    replay = Replay.of(
        GPTQ(), torch.randn(6, 172, generator=torch.Generator().manual_seed(2)), seen
    )
    for step in (0, 1, 31, 32, 100, 171):
        torch.testing.assert_close(
            replay.columns.values_after(step, replay.before)[step],
            replay.columns.weight[step],
            rtol=1e-4,
            atol=1e-4,
        )
    assert torch.equal(replay.columns.values_after(0, replay.before), replay.before)


@each_architecture
def test_the_output_error_begins_at_nothing_and_plain_rounding_is_the_formulas(
    architecture, questions
):
    compressed = look_at_hand(**questions(architecture, "gptq"))
    replay = Replay.of(compressed.config, compressed.weight[:ROWS].contiguous(), compressed.stats)
    first, (few, plain) = (
        replay.after(0),
        (
            compressed.weight[:ROWS],
            compress(compressed.config.rounding(), compressed.weight[:ROWS]).to_dense(),
        ),
    )
    assert first.gptq_error.max() == first.plain_error.max() == 0
    expected = (
        (
            ((plain - few) @ compressed.stats.gram * (plain - few)).sum()
            / (few @ compressed.stats.gram * few).sum()
        )
        .sqrt()
        .item()
    )
    assert replay.share_lost(plain.T[replay.order]) == pytest.approx(expected, rel=1e-4)


def test_steps_rows_and_columns_are_few_whatever_the_layer(questions):
    table = lesson(**questions("llama", "gptq")).table
    assert (
        table.row.nunique() == ROWS
        and table.place.nunique() == PLACES
        and table.step.nunique() == PLACES + 1
    )
    assert len(table) == ROWS * PLACES * (PLACES + 1) and lesson(
        **questions("llama", "gptq")
    ).part.startswith("12 of 48 output rows")


# --- single weights -------------------------------------------------------------------------------


@any_step
@each_architecture
def test_scale_times_level_is_the_weight_that_the_model_computes_with(
    architecture, step, questions
):
    compressed = look_at_hand(**questions(architecture, step))
    dense, factors = (
        compressed.stored.to_dense() / compressed.scales,
        column_factors(compressed.stored) * compressed.scales,
    )
    out, in_ = dense.shape
    for row, column in {
        (0, 0),
        (out - 1, in_ - 1),
        (out // 2, in_ // 3),
        (1, in_ - 1),
        (out - 1, 0),
    }:
        code = weight_location(compressed.stored, row, column).code
        if code is None:
            assert STEPS[step]["technique"] in WITHOUT_CODES or (
                step == "llm-int8" and (compressed.stored.columns == column).any()
            )
            continue
        assert code.scale * code.level / factors[column].item() == pytest.approx(
            dense[row, column].item(), rel=1e-5, abs=1e-8
        )
        assert code.zero != code.zero or code.level == code.code - code.zero
        assert (
            int(code.bit_string, 2) == code.code % 2**code.bits
            and len(code.bit_string) == code.bits
        )


@any_step
@each_architecture
def test_a_weight_stands_among_its_neighbours_on_the_levels_of_its_group(
    architecture, step, questions
):
    question = questions(architecture, step)
    shape = look_at_hand(**question).weight.shape
    for row, column in ((0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2)):
        view = weight(**question, row=row, column=column)
        assert view.group.chosen.sum() == 1 and len(view.group) <= NEIGHBOURS
        mine = view.group[view.group.chosen].iloc[0]
        assert (mine.row, mine.column) == (row, column) and mine.stored == pytest.approx(
            view.stored * view.factor, rel=1e-5, abs=1e-8
        )
        assert mine.original == pytest.approx(view.original * view.factor, rel=1e-5)
        if not view.levels.empty:
            nearest = [(view.levels.value - value).abs().min() for value in view.group.stored]
            assert max(nearest) < 1e-4 * view.levels.value.abs().max()


@for_each("config", EVERY, ids=technique_id)
@for_each("shape", [(33, 352), (7, 13), (1, 5)], ids=str)
def test_every_setting_is_explained(config, shape):
    stored = compress(config, torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    if isinstance(stored, DenseWeight):
        return  # a longer or shorter number has no code that says more than its value
    for row, column in ((0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 2)):
        seen = weight_location(stored, row, column)
        assert seen.code.scale * seen.code.level == pytest.approx(
            stored.to_dense()[row, column].item(), rel=1e-5, abs=1e-8
        )
        assert (
            (seen.rows == row) & (seen.columns == column)
        ).sum() == 1 and 1 <= seen.code.shared_by <= shape[0] * shape[1]
        values = stored.to_dense()[seen.rows, seen.columns]
        assert (
            torch.stack([(seen.levels - value).abs().min() for value in values]).max()
            < 1e-4 * seen.levels.abs().max()
        )


def test_a_kind_that_is_not_known_shows_the_weight_beside_its_neighbours():
    seen = weight_location(DenseWeight((4, 100), torch.randn(4, 100)), 2, 70)
    assert (
        seen.code is None
        and seen.levels is None
        and 70 in seen.columns
        and len(seen.columns) == NEIGHBOURS
        and set(seen.rows.tolist()) == {2}
    )


@any_step
def test_a_piece_is_a_part_of_the_layer_before_and_after(step, questions):
    question = questions("llama", step)
    compressed, some = look_at_hand(**question), piece(**question, row=40, column=64)
    out, in_ = compressed.weight.shape
    assert some.shape == (out, in_) and list(some.table.columns) == names_of(MapRow)
    assert (
        len(some.table) == (out - 40) * SIDE
        and set(some.table.row) == set(range(40, out))
        and set(some.table.column) == set(range(64, 64 + SIDE))
    )
    last = some.table.iloc[-1]
    assert (
        last.original == compressed.weight[out - 1, 64 + SIDE - 1]
        and last.stored
        == (compressed.stored.to_dense() / compressed.scales)[out - 1, 64 + SIDE - 1]
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


def test_looking_closer_does_not_compress_again(questions, monkeypatch):
    question = questions("llama", "rounding")
    lesson(**question)
    monkeypatch.setattr(
        layer_preview, "preview", lambda *args, **kwargs: pytest.fail("compressed again")
    )
    piece(**question)
    weight(**question, row=5, column=5)


def test_only_the_last_looks_are_kept(questions, monkeypatch):
    monkeypatch.setattr(CACHE, "previews", Recent(2))
    for step in ("rounding", "nf4", "int8"):
        lesson(**questions("llama", step))
    assert len(CACHE.previews.values) == 2


# --- each technique at work -----------------------------------------------------------------------


@any_step
@each_architecture
def test_every_technique_has_a_picture_of_its_own_kind_that_stays_small(
    architecture, step, questions
):
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


@each_architecture
def test_the_scaled_column_is_the_one_behind_the_strongest_input(architecture, questions):
    question = questions(architecture, "awq")
    table, compressed = lesson(**question).table, look_at_hand(**question)
    column = table.column.iloc[0]
    assert compressed.stats.abs_mean[
        column
    ] == compressed.stats.abs_mean.max() and table.factor.iloc[0] == pytest.approx(
        compressed.scales[column].item()
    )
    missed = (compressed.stored.to_dense() / compressed.scales - compressed.weight)[
        : len(table), column
    ]
    torch.testing.assert_close(
        torch.tensor(table.error_with.to_numpy()), missed, rtol=1e-3, atol=1e-6
    )


def test_smoothing_shortens_the_strongest_inputs_and_lengthens_their_weights(questions):
    table = lesson(**questions("llama", "smoothquant")).table
    assert table.input_before.is_monotonic_decreasing and len(table) <= COLUMNS
    strongest, weakest = (table.input_after / table.input_before).iloc[[0, -1]]
    assert strongest < weakest


def test_outliers_are_those_stored_apart(questions):
    table = lesson(**questions("llama", "llm-int8")).table
    assert table.apart.equals(table.largest >= table.threshold)


def test_more_bits_leave_less_error(questions):
    table = lesson(**questions("llama", "mixed-precision")).table
    assert (
        table.relative_error.is_monotonic_decreasing
        and table.bits_per_weight.is_monotonic_increasing
    )
    assert set(table.bits[table.allowed]) == {2, 3, 4, 8}


def test_each_way_of_choosing_keeps_the_same_number_of_channels(questions):
    table = lesson(**questions("llama", "awq-salience")).table
    kept = table[["by_activations", "by_weights", "at_random"]].sum()
    assert (
        kept.nunique() == 1
        and table.activation[table.by_activations].min()
        >= table.activation[~table.by_activations].max()
    )
