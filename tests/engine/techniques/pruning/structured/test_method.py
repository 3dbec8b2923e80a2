"""Structured pruning: the smaller model computes exactly what the original does without
them.
"""

import json
from dataclasses import replace
from math import prod

import pytest
import torch
import torch_pruning
from torch import nn
from torch.nn.utils import prune
from transformers.pytorch_utils import Conv1D

from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.blockwise import run_step
from engine.pipeline.run import run
from engine.step.run_context import RunContext
from engine.techniques.implementations import plan_removal, survey
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.structured.coupled_structures import (
    StructureGroup,
    StructureSlice,
    adjacent_positions,
)
from engine.techniques.pruning.structured.method import ORDERS, ScoredGroup, group_norms
from engine.techniques.pruning.structured.method import kept_mask as chosen_of
from tests.answers import forecast, lesson, piece, what_if
from tests.answers import weight as one_weight
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.structures import (
    BLOCKS,
    CHANNELS,
    LAYERS,
    STEPS,
    TRANSFORMERS,
    assert_alike,
    error_message,
    inputs_for,
    number_of,
    open_saved,
    plain,
    plain_of_packed,
    subject_of,
)
from tests.tiny import LANGUAGE_MODELS, tiny

CPU = torch.device("cpu")
EVERY = STEPS | CHANNELS | BLOCKS
CASES = [(a, s) for a in TRANSFORMERS for s in (*STEPS, *BLOCKS)] + [
    ("resnet", s) for s in CHANNELS
]
each_case = for_each(("architecture", "step"), CASES)


# --- scores ---------------------------------------------------------------------------------------


@for_each("side", ["outputs", "inputs"])
@for_each("kernel", [(), (3, 3)], ids=["linear", "convolution"])
@for_each("score", ORDERS)
def test_norms_choose_as_torchs_ln_structured(score, kernel, side):
    layer = nn.Conv2d(12, 20, kernel) if kernel else nn.Linear(12, 20)
    axis, width = ("outputs", "inputs").index(side), 1 if side == "outputs" else prod(kernel)
    due = (
        prune.ln_structured(layer, "weight", 0.4, n=ORDERS[score], dim=axis)
        .weight_mask.transpose(0, axis)
        .flatten(1)
    )
    family = StructureGroup(
        "layer", "channel", (StructureSlice("layer", side, adjacent_positions(len(due), width)),)
    )
    scored = ScoredGroup(
        family, group_norms(family, lambda _: layer.weight_orig.flatten(1), ORDERS[score])
    )
    assert torch.equal(chosen_of(Structured(score=score, share=0.4), scored), due.bool().all(1))


@pytest.fixture(scope="module")
def finished_run(cached_run):
    """Return the outcome by the step's name."""
    return lambda architecture, step: cached_run(architecture, EVERY[step])


@torch.no_grad()
def silence(model, architecture, structures) -> None:
    """Set to zero, in place, the weights of layers that read removed neurons and heads."""
    for row in structures[~structures.kept].itertuples():
        reader = model.get_submodule(
            LAYERS[architecture][row.what != "neuron"].format(number_of(row.block))
        )
        matrix = reader.weight if isinstance(reader, Conv1D) else reader.weight.T  # (in_, out)
        width = {"neuron": 1, "head": 12, "key/value group": 24}[row.what]
        matrix[row.index * width : (row.index + 1) * width] = 0


# --- exactness ------------------------------------------------------------------------------------


@for_each("step", STEPS)
@for_each("architecture", TRANSFORMERS)
def test_the_saved_model_computes_what_the_original_does_without_those_structures(
    architecture, step, finished_run, folders
):
    outcome, save, _ = finished_run(architecture, step)
    reference = plain(architecture, folders[architecture])
    before = reference(**inputs_for(architecture)).logits
    silence(reference, architecture, outcome.tables.structures)
    assert not torch.allclose(reference(**inputs_for(architecture)).logits, before, atol=1e-6)
    assert_alike(open_saved(save).model, reference, architecture)


@pytest.mark.parametrize("step", CHANNELS)
def test_a_network_without_channels_computes_what_it_does_when_its_norms_give_zero_there(
    step, finished_run, folders
):
    """Batch norms stand behind every convolution of this network, so a channel whose norms give
    zero is gone.
    """
    _, save, _ = finished_run("resnet", step)
    small, reference = open_saved(save), plain("resnet", folders["resnet"])
    before = {
        name: set(map(tuple, matrix.tolist())) for name, matrix in rows_of_kernels(small).items()
    }
    with torch.no_grad():
        for name, norm in reference.named_modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                kernel = reference.get_submodule(name.replace("normalization", "convolution"))
                gone = gone_rows(
                    kernel,
                    small.model.get_submodule(name.replace("normalization", "convolution")),
                    before,
                )
                norm.weight[gone], norm.bias[gone] = 0.0, 0.0
    assert_alike(small.model, reference, "resnet")


def rows_of_kernels(small) -> dict:
    return {
        layer.name: small.model.get_submodule(layer.name).stored.to_dense()
        for layer in small.layers
        if layer.kind == "conv2d"
    }


def gone_rows(kernel, left, before) -> list[int]:
    """Rows of which the smaller kernel has no part: its rows are subsets of the original ones, in
    order.
    """
    matrix, rows, at = kernel.weight.flatten(1), left.stored.to_dense(), 0
    gone = []
    for number, row in enumerate(matrix):
        if at < len(rows) and set(rows[at].tolist()) <= set(row.tolist()):
            at += 1
        else:
            gone.append(number)
    assert at == len(rows)
    return gone


@for_each(
    ("architecture", "step", "fields"),
    [
        ("llama", "neurons", {"intermediate_size": 129}),
        ("gpt2", "neurons", {"n_inner": 129}),
        ("opt", "neurons", {"ffn_dim": 129}),
        ("bert", "neurons", {"intermediate_size": 129}),
        ("llama", "heads", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 12}),
        (
            "qwen2",
            "heads-evenly",
            {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 12},
        ),
        ("resnet", "channels", {"embedding_size": 6, "hidden_sizes": [9, 15]}),
    ],
)
def test_where_layers_are_alike_config_json_alone_makes_the_model(
    architecture, step, fields, finished_run
):
    _, save, _ = finished_run(architecture, step)
    assert json.loads((save / "config.json").read_bytes()).items() >= fields.items()
    assert_alike(plain_of_packed(architecture, save), open_saved(save).model, architecture)


@for_each(
    ("architecture", "step"),
    [("llama", "neurons-l1-global"), ("gpt2", "heads"), ("bert", "heads"), ("opt", "heads")],
)
def test_where_config_json_has_no_words_for_the_shapes_it_stays(
    architecture, step, finished_run, folders
):
    _, save, _ = finished_run(architecture, step)
    before, after = (
        json.loads((folder / "config.json").read_bytes())
        for folder in (folders[architecture], save)
    )
    assert after == before


@for_each("step", ["heads", "heads-evenly", "neurons-l1-global", "blocks"])
@for_each("architecture", LANGUAGE_MODELS)
def test_generation_is_the_same_with_and_without_a_cache(architecture, step, finished_run):
    model = open_saved(finished_run(architecture, step)[1]).model
    asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.inference_mode():
        one, other = (
            model.generate(torch.arange(4, 20)[None], use_cache=cache, **asked)
            for cache in (True, False)
        )
    assert one.tolist() == other.tolist() and one.shape == (1, 22)


def test_torch_prunings_own_pruner_leaves_the_same_shapes(finished_run, folders):
    small, model = (
        open_saved(finished_run("resnet", "channels")[1]),
        plain("resnet", folders["resnet"]),
    )
    torch_pruning.pruner.BasePruner(
        model,
        {"pixel_values": torch.randn(1, 1, 16, 16)},
        torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.25,
        ignored_layers=[model.classifier],
    ).step()
    assert {layer.name: layer.shape for layer in small.layers} == {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }


# --- what is said of it ---------------------------------------------------------------------------


@each_case
def test_sizes_counts_and_shapes_are_those_of_the_files(architecture, step, finished_run):
    outcome, save, _ = finished_run(architecture, step)
    small, result, layers, ledger = (
        open_saved(save),
        outcome.summary.result,
        outcome.tables.layers,
        outcome.tables.ledger,
    )
    written = sum(file.stat().st_size for file in save.glob("*.safetensors"))
    assert (
        written
        == result.size_bytes
        == ledger.size_bytes.sum()
        == resolve_model(str(save)).size_bytes
    )
    assert result.parameters == small.parameters < outcome.summary.baseline.parameters
    assert (
        result.parameters
        == sum(value.numel() for value in small.plain.values())
        + layers.parameters[layers.tied_to == ""].sum()
    )
    held = (
        layers[(layers.tied_to == "") & (layers.size_bytes > 0)]
        .set_index("name")
        .size_bytes.to_dict()
    )
    assert ledger.groupby("layer").size_bytes.sum().drop("").to_dict() == held
    treated = layers[layers.technique != ""]
    before = sum(prod(shape) for shape in treated.original_shape)  # what went counts too
    assert (
        result.bits_per_weight == treated.size_bytes.sum() * 8 / before < 32
        and result.compression > 1
    )
    assert (treated.size_bytes == 4 * treated.parameters).all()
    assert sorted(small.shape for small in small.layers) == sorted(
        tuple(shape) for shape in layers["shape"] if shape[0]
    )


@each_case
def test_the_saved_model_has_the_scores_of_its_run(architecture, step, finished_run):
    outcome, save, recipe = finished_run(architecture, step)
    again, said = (
        run(recipe.model_copy(update={"model": str(save), "steps": ()})).summary.result,
        outcome.summary.result,
    )
    assert (again.loss, again.accuracy, again.size_bytes, again.parameters) == (
        said.loss,
        said.accuracy,
        said.size_bytes,
        said.parameters,
    )


@pytest.mark.usefixtures("bytes_alone")
@for_each(
    ("architecture", "step"),
    [case for case in CASES if "taylor-global" not in case[1] and "global" not in case[1]],
)
def test_the_forecast_is_the_size_of_the_files_to_the_byte(architecture, step, finished_run):
    outcome, _, recipe = finished_run(architecture, step)
    said, result = forecast(recipe), outcome.summary.result
    assert (said.size_bytes, said.bits_per_weight, said.compression) == (
        result.size_bytes,
        result.bits_per_weight,
        result.compression,
    )
    assert said.layers == (outcome.tables.layers.technique != "").sum()


def test_a_layers_error_is_the_share_of_its_norm_that_went(finished_run, folders):
    outcome, save, _ = finished_run("llama", "neurons")
    row = outcome.tables.layers.set_index("name").loc["model.layers.1.mlp.down_proj"]
    before = plain("llama", folders["llama"]).model.layers[1].mlp.down_proj.weight.norm().item()
    after = open_saved(save).model.model.layers[1].mlp.down_proj.stored.to_dense().norm().item()
    assert row.relative_error == pytest.approx((1 - (after / before) ** 2) ** 0.5, rel=1e-4)
    assert (row["shape"], row.original_shape, row.parameters, row.sparsity) == (
        (48, 129),
        (48, 172),
        48 * 129,
        0.0,
    )
    assert row.note == "reads 129 of 172 neurons"


def test_a_share_that_whole_heads_cannot_meet_gives_a_message(folders, tmp_path):
    step = {"technique": "structured", "what": "heads", "share": 0.25}
    notes = run(recipe_for("llama", folders["llama"], tmp_path / "data", step)).tables.layers.note
    assert (
        "1 of 2 key/value groups left (25% was requested; only whole key/value groups are removed)"
        in set(notes)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_left_keeps_its_number_format(dtype, tmp_path):
    folder = tiny("gpt2", tmp_path / "model", dtype)
    layers = run(recipe_for("gpt2", folder, tmp_path / "data", STEPS["neurons"])).tables.layers
    treated = layers[layers.technique != ""]
    assert len(treated) and (treated.size_bytes == 2 * treated.parameters).all()


@for_each("step", [{"technique": "structured", "share": 0}, {"technique": "blocks", "count": 0}])
@for_each("architecture", ["llama", "gpt2", "bert"])
def test_to_take_out_nothing_changes_nothing(architecture, step, folders, tmp_path):
    outcome = run(
        recipe_for(architecture, folders[architecture], tmp_path / "data", step),
        save=tmp_path / "saved",
    )
    assert (
        outcome.summary.result.loss == outcome.summary.baseline.loss
        and outcome.tables.structures.kept.all()
    )
    assert outcome.summary.result.parameters == outcome.summary.baseline.parameters
    assert_alike(
        open_saved(tmp_path / "saved").model,
        plain(architecture, folders[architecture]),
        architecture,
    )


def test_over_all_layers_the_least_go_and_each_layer_keeps_one(folders, tmp_path):
    config = Structured(share=0.98, scope="global", score="taylor")
    subject = subject_of("gpt2", folders, tmp_path, STEPS["neurons-taylor-global"])
    found = survey(config, subject)
    found[0] = replace(found[0], scores=found[0].scores * 1e-6)
    left = [row for row in plan_removal(config, subject, found).structures if row.kept]
    assert (
        len(left) == 344 - round(0.98 * 344)
        and sum(row.block == found[0].family.block for row in left) == 1
    )


def test_groups_stay_equal_where_heads_go_evenly(finished_run):
    rows = finished_run("llama", "heads-evenly")[0].tables.structures
    assert (
        rows.assign(group=rows["index"] // 2).groupby(["block", "group"]).kept.sum() == 1
    ).all() and len(rows) == 8


def test_structures_in_skipped_layers_stay(folders, tmp_path):
    layers = {"skip": ["lm_head", "model.layers.0.mlp.up_proj"]}
    outcome = run(
        recipe_for("llama", folders["llama"], tmp_path / "data", STEPS["neurons"], layers=layers)
    )
    assert set(outcome.tables.structures.block) == {"model.layers.1"}
    outcome = run(
        recipe_for("llama", folders["llama"], tmp_path / "data", BLOCKS["blocks"], layers=layers)
    )
    assert outcome.tables.structures.kept.tolist() == [True, False]


# --- one step after another -----------------------------------------------------------------------


def after(save, recipe, step, out):
    """A further step over a folder that was written, as a run of several would take it."""
    folder, following = (
        resolve_model(str(save)),
        type(recipe).from_dict(recipe.model_dump() | {"model": str(save), "steps": [step]}),
    )
    original = load_model(folder, CPU, torch.float32)
    out.mkdir()
    run_step(
        RunContext(following, folder),
        original,
        selected_layers(original.layers, following.layers),
        out,
    )
    return open_saved(out)


@for_each(
    "step", [{"technique": "round-to-nearest"}, {"technique": "gptq"}, {"technique": "magnitude"}]
)
@for_each(
    ("architecture", "first"),
    [("llama", "heads-global"), ("gpt2", "heads"), ("bert", "neurons"), ("resnet", "channels")],
)
def test_a_pruned_model_is_compressed_further(architecture, first, step, finished_run, tmp_path):
    _, save, recipe = finished_run(architecture, first)
    small = open_saved(save)
    further = after(save, recipe, step, tmp_path / "out")
    assert [(layer.name, layer.shape) for layer in further.layers] == [
        (layer.name, layer.shape) for layer in small.layers
    ]
    weights = {
        layer.name: further.model.get_submodule(layer.name).stored.to_dense()
        for layer in further.layers
    }
    for name, weight in weights.items():
        small.model.get_submodule(name).stored = replace_weight(
            small.model.get_submodule(name).stored, weight
        )
    assert_alike(further.model, small.model, architecture)


def replace_weight(stored, weight):
    return replace(stored, weight=weight)


def test_blocks_heads_and_neurons_can_go_one_after_the_other(tmp_path):
    folder = tiny("qwen2", tmp_path / "model", num_hidden_layers=4)
    recipe = recipe_for("qwen2", folder, tmp_path / "data", STEPS["heads-global"])
    calibrated = recipe.model_copy(
        update={
            "calibration": recipe_for(
                "qwen2", folder, tmp_path / "data", BLOCKS["blocks"]
            ).calibration
        }
    )
    run(calibrated, save=tmp_path / "first")
    without = after(
        tmp_path / "first", calibrated, {"technique": "blocks", "count": 2}, tmp_path / "second"
    )
    assert len(without.model.model.layers) == 2 and [
        block.self_attn.layer_idx for block in without.model.model.layers
    ] == [0, 1]
    least = after(
        tmp_path / "second",
        calibrated,
        {"technique": "structured", "share": 0.5},
        tmp_path / "third",
    )
    assert {layer.shape for layer in least.layers if "down_proj" in layer.name} == {(48, 86)}
    least.model.generate(torch.arange(4, 20)[None], max_new_tokens=3, pad_token_id=0)


# --- questions ------------------------------------------------------------------------------------


@for_each(
    ("architecture", "step"),
    [("llama", "neurons"), ("gpt2", "heads-taylor"), ("resnet", "channels"), ("bert", "blocks")],
)
def test_a_layer_is_shown_as_a_run_leaves_it(architecture, step, finished_run, folders):
    outcome, _, recipe = finished_run(architecture, step)
    treated = outcome.tables.layers[outcome.tables.layers.technique != ""].iloc[-1]
    measured = recipe.model_dump(mode="json", include={"task", "calibration"})
    asked = {
        "model": str(folders[architecture]),
        "layer": treated["name"],
        "step": EVERY[step],
        "measured": measured,
    }
    said, shown = what_if(**asked), lesson(**asked)
    assert said.row.shape == tuple(treated["shape"]) and said.row.note == treated.note
    assert said.row.relative_error == pytest.approx(treated.relative_error, rel=1e-4)
    rows = outcome.tables.structures
    assert set(shown.table.score.round(4)) <= set(rows.score.round(4)) and len(shown.table) in set(
        rows.groupby("block").size()
    ) | {len(rows)}
    assert piece(**asked).shape == treated.original_shape and one_weight(**asked).code is None


# --- refusals -------------------------------------------------------------------------------------


@for_each(
    ("architecture", "step", "says"),
    [
        (
            "llama",
            {"technique": "structured", "what": "heads", "share": 0.9},
            "would leave no key/value group in model.layers.0, which has 2",
        ),
        (
            "gpt2",
            {"technique": "structured", "what": "heads", "share": 0.99, "scope": "global"},
            "would remove 8 of 8 heads",
        ),
        (
            "llama",
            {"technique": "structured", "what": "heads", "share": 0.1},
            "nothing would be removed; set it to 25% or more",
        ),
        (
            "llama",
            STEPS["heads-evenly"] | {"scope": "global"},
            "only with a share per layer; set Scope (scope)",
        ),
        (
            "resnet",
            {"technique": "structured", "what": "heads"},
            "is a convolutional network without heads",
        ),
        (
            "resnet",
            {"technique": "structured", "what": "neurons"},
            "is a convolutional network without neurons",
        ),
        (
            "resnet",
            {"technique": "structured", "share": 0.99},
            "which has 8; lower Share removed (share)",
        ),
        (
            "llama",
            {"technique": "structured", "what": "channels"},
            "has no convolutions, so it has no channels",
        ),
        (
            "llama",
            {"technique": "blocks", "count": 2},
            "2 of 2 blocks would leave none; take out 1 at most",
        ),
        ("resnet", {"technique": "blocks"}, "has no removable blocks"),
    ],
)
def test_structures_that_cannot_be_removed_give_a_message(
    architecture, step, says, folders, tmp_path
):
    assert says in error_message(architecture, folders, tmp_path, step)
