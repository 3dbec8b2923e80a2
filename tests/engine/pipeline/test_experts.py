"""Complete runs on models with experts."""

import json

import pytest
import torch

from engine.models.layers import layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.models.origin import Origin
from engine.models.packed_folder import PackedFolder, read_packed
from engine.pipeline.run import run
from engine.tensors.weights import DenseWeight
from tests import answers
from tests.cases import for_each
from tests.experts import EXPERTS, MODELS, build_model, save_model, save_model_without_tokens
from tests.recipes import recipe_for

CPU = torch.device("cpu")
ROUNDING = {"technique": "round-to-nearest", "bits": 4}
EVERY = [
    ROUNDING,
    {"technique": "gptq"},
    {"technique": "awq"},
    {"technique": "smoothquant"},
    {"technique": "wanda"},
    {"technique": "sparsegpt"},
    {"technique": "taylor"},
    {"technique": "svd", "kept": 0.5, "scope": "layer"},
    {"technique": "structured", "what": "neurons", "share": 0.25},
]
ONE = {step["technique"]: step for step in EVERY}
RUNS = [
    *((name, ROUNDING) for name in MODELS),
    *(("mixtral", step) for step in EVERY[1:]),
    *((name, ONE["gptq"]) for name in ("deepseek-v3", "gpt-oss", "llama4", "jetmoe")),
    *((name, ONE["awq"]) for name in ("qwen2-moe", "jetmoe")),
    *((name, ONE["structured"]) for name in ("qwen2-moe", "gpt-oss", "nemotron-h")),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: save_model(name, tmp_path_factory.mktemp(name)) for name in MODELS}


def ids(case):
    return case if isinstance(case, str) else case["technique"]


@for_each(("name", "step"), RUNS, ids=ids)
def test_experts_are_compressed_and_reload_with_equal_loss_and_the_forecast_bytes(
    name, step, folders, tmp_path
):
    recipe = recipe_for("mixtral", folders[name], tmp_path / "data", step)
    planned = answers.forecast(recipe)
    outcome = run(recipe, save=tmp_path / "saved")
    again = run(recipe_for("mixtral", tmp_path / "saved", tmp_path / "data")).summary.result
    assert again.loss == outcome.summary.result.loss
    assert outcome.summary.result.size_bytes == sum(
        path.stat().st_size for path in (tmp_path / "saved").glob("*.safetensors")
    )
    if not (planned.at_least or planned.at_most):
        assert outcome.summary.result.size_bytes == planned.size_bytes
    layers = outcome.tables.layers
    experts = layers[layers.name.str.contains(r"experts\.\d|_linear\.\d")]
    assert len(experts) >= 2 * EXPERTS and (experts.technique == step["technique"]).all()
    assert (experts.relative_error > 0).mean() > 0.9


TRAINED = [
    {"technique": "gradual", "sparsity": 0.5, "steps": 4, "prune_every": 2},
    {"technique": "qat", "steps": 3},
    {"technique": "lora", "steps": 3},
    {"technique": "distill", "steps": 3, "blocks": 0.5},
]


@for_each("step", TRAINED, ids=ids)
def test_training_techniques_support_experts(step, folders, tmp_path):
    outcome = run(
        recipe_for("mixtral", folders["mixtral"], tmp_path / "data", step), save=tmp_path / "saved"
    )
    again = run(recipe_for("mixtral", tmp_path / "saved", tmp_path / "data")).summary.result
    assert again.loss == outcome.summary.result.loss
    layers = outcome.tables.layers.set_index("name")
    assert (
        layers.technique[f"model.layers.0.mlp.experts.{EXPERTS - 1}.down_proj"] == step["technique"]
    )


SVD = {"technique": "svd", "kept": 0.5, "scope": "layer"}
DATA_FREE = [
    (
        {"technique": "gptq", "bits": 3, "range": "absmax"},
        {"technique": "round-to-nearest", "bits": 3, "range": "absmax"},
    ),
    (
        {"technique": "wanda", "sparsity": 0.5, "scope": "row"},
        {"technique": "magnitude", "sparsity": 0.5, "scope": "row"},
    ),
    (SVD | {"whitening": "svd-llm"}, SVD | {"whitening": "none"}),
    (
        {"technique": "taylor", "sparsity": 0.5, "scope": "layer"},
        {"technique": "magnitude", "sparsity": 0.5, "scope": "layer"},
    ),
]


@for_each(("step", "data_free"), DATA_FREE, ids=ids)
def test_an_expert_that_no_token_reaches_is_named_and_treated_without_data(
    step, data_free, tmp_path
):
    folder, weights = save_model_without_tokens(tmp_path / "model"), []
    for number, each in enumerate((step, data_free)):
        outcome = run(
            recipe_for("mixtral", folder, tmp_path / "data", each), save=tmp_path / str(number)
        )
        layers, _ = read_packed(tmp_path / str(number))
        weights.append(
            {name: stored.to_dense() for name, stored in layers.items() if ".experts.2." in name}
        )
        notes = outcome.tables.layers.set_index("name").note
        lonely = notes.index.str.contains(".experts.2.", regex=False)
        assert notes[lonely].str.contains("no calibration token was routed to it").all() == (
            number == 0
        )
        assert not notes[~lonely].str.contains("no calibration token").any()
    assert len(weights[0]) == 6
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "step",
    [
        {"technique": "awq"},
        {"technique": "activations", "mode": "static"},
        {"technique": "llm-int8"},
    ],
    ids=ids,
)
def test_techniques_that_move_scales_or_choose_ranges_take_experts_without_tokens(step, tmp_path):
    folder = save_model_without_tokens(tmp_path / "model")
    outcome = run(recipe_for("mixtral", folder, tmp_path / "data", step), save=tmp_path / "saved")
    again = run(recipe_for("mixtral", tmp_path / "saved", tmp_path / "data")).summary.result
    layers = outcome.tables.layers
    assert again.loss == outcome.summary.result.loss
    assert (layers[layers.name.str.contains("experts")].technique == step["technique"]).all()


@pytest.mark.parametrize("name", ["qwen2-moe", "jetmoe"])
def test_routers_are_not_compressed_unless_included(name, folders, tmp_path):
    router = {
        "qwen2-moe": "model.layers.0.mlp.shared_expert_gate",
        "jetmoe": "model.layers.0.mlp.router.layer",
    }[name]
    rows = run(
        recipe_for("mixtral", folders[name], tmp_path / "data", ROUNDING)
    ).tables.layers.set_index("name")
    assert rows.technique[router] == "" and "layers.include" in rows.note[router]
    fields = {"layers": {"include": [router]}}
    rows = run(
        recipe_for("mixtral", folders[name], tmp_path / "data", ROUNDING, **fields)
    ).tables.layers.set_index("name")
    assert rows.technique[router] == ROUNDING["technique"]


def test_a_folder_of_an_earlier_version_with_fused_experts_still_opens(tmp_path):
    """Written when experts were tensors outside layers."""
    folder = resolve_model(str(save_model("gpt-oss", tmp_path / "model")))
    fused = build_model("gpt-oss")
    names = {layer.name for layer in layers_of(fused)}
    (tmp_path / "packed").mkdir()
    packed = PackedFolder(tmp_path / "packed", folder, {})
    weights = {name: fused.get_submodule(name).weight for name in names}
    packed.add({name: DenseWeight(tuple(weight.shape), weight) for name, weight in weights.items()})
    plain = {
        name: value
        for name, value in fused.state_dict().items()
        if name.removesuffix(".weight") not in names
    }
    assert "model.layers.0.mlp.experts.gate_up_proj" in plain
    packed.add({}, plain)
    packed.finish(Origin(1))
    mark = json.loads((tmp_path / "packed" / "compression.json").read_bytes())
    del mark["origin"]
    (tmp_path / "packed" / "compression.json").write_text(json.dumps(mark))
    ids = torch.randint(4, 200, (2, 16), generator=torch.Generator().manual_seed(0))
    again = load_model(resolve_model(str(tmp_path / "packed")), CPU, torch.float32)
    with torch.no_grad():
        assert torch.equal(
            again.model(input_ids=ids).logits,
            load_model(folder, CPU, torch.float32).model(input_ids=ids).logits,
        )


def test_questions_about_an_expert_are_answered(folders, tmp_path):
    model, name = str(folders["qwen3-moe"]), "model.layers.1.mlp.experts.4.up_proj"
    view = answers.model_view(model).layers
    assert (view.name == name).sum() == 1 and (
        view[view.name == name].block == "model.layers.1"
    ).all()
    about = recipe_for(
        "mixtral", folders["qwen3-moe"], tmp_path / "data", {"technique": "gptq"}
    ).model_dump(mode="json")
    measured = {key: about[key] for key in ("task", "calibration")}
    assert answers.what_if(model, name, {"technique": "gptq"}, measured).row.relative_error > 0
    assert len(answers.layer_view(model, name).spectrum) > 0


def test_a_run_on_experts_is_timed(folders, tmp_path):
    """Layers get flattened tokens, and experts only some of them."""
    recipe = recipe_for(
        "mixtral",
        folders["qwen2-moe"],
        tmp_path / "data",
        {"technique": "round-to-nearest", "bits": 8, "granularity": "channel"},
    )
    rows = run(recipe.model_copy(update={"speed": True})).tables.latency
    assert not rows.empty


def test_neurons_go_from_each_expert_by_its_own_scores(folders, tmp_path):
    step = {"technique": "structured", "what": "neurons", "share": 0.25}
    outcome = run(
        recipe_for("mixtral", folders["deepseek-v3"], tmp_path / "data", step),
        save=tmp_path / "saved",
    )
    kept = outcome.tables.structures
    per_expert = kept[kept.block.str.contains(r"experts\.\d")].groupby("block").kept.sum()
    assert len(per_expert) == EXPERTS and (per_expert == 15).all()
    whole = {layer.name: layer.shape for layer in layers_of(build_model("deepseek-v3"))}
    layers, _ = read_packed(tmp_path / "saved")
    for name in ("model.layers.0.mlp.down_proj", "model.layers.1.mlp.shared_experts.down_proj"):
        assert layers[name].shape == (48, 3 * whole[name][1] // 4)
    assert layers["model.layers.1.mlp.experts.0.down_proj"].shape == (48, 15)
    assert layers["model.layers.1.mlp.experts.0.gate_proj"].shape == (15, 48)


@pytest.mark.parametrize("stays", [0, 1])
def test_a_block_with_experts_and_one_without_may_go(stays, folders, tmp_path):
    """DeepSeek-V3's configuration contains the number of first blocks without experts."""
    fields = {"layers": {"skip": [f"model.layers.{stays}.*"]}}
    recipe = recipe_for(
        "mixtral",
        folders["deepseek-v3"],
        tmp_path / "data",
        {"technique": "blocks", "count": 1},
        **fields,
    )
    outcome = run(recipe, save=tmp_path / "saved")
    again = run(recipe_for("mixtral", tmp_path / "saved", tmp_path / "data")).summary.result
    layers, _ = read_packed(tmp_path / "saved")
    assert again.loss == outcome.summary.result.loss
    assert ("model.layers.0.mlp.experts.0.down_proj" in layers) == (stays == 1) and not any(
        "layers.1." in name for name in layers
    )
