"""Several steps: zeros stay zero, the pair has one honest size, and what comes out is what was
written.
"""

import pytest
import torch

from engine.calibration import InputStats
from engine.errors import Cancelled, PlainError
from engine.forecast import Cost
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.techniques.implementations import compress
from engine.techniques.quantization.awq.method import summed_output_error
from engine.techniques.quantization.gptq.config import GPTQ
from tests.answers import forecast
from tests.cases import covering, for_each
from tests.recipes import recipe_for
from tests.steps import ANY
from tests.tiny import ARCHITECTURES

CPU = torch.device("cpu")
PRUNED = {"technique": "magnitude", "sparsity": 0.6}
HOW = {name: Recipe.from_dict({"steps": [step]}).steps[0] for name, step in ANY.items()}
# which fill zeros
AFTER_PRUNING = [
    name
    for name, config in HOW.items()
    if "zeros" in config.accepts and config.produces != "adapters"
]


def test_gptq_makes_up_for_what_it_may_not_touch():
    """Zeros that are kept while it works cost less than zeros put back afterwards."""
    draw = torch.Generator().manual_seed(6)
    inputs = torch.randn(400, 12, generator=draw) @ torch.randn(
        12, 96, generator=draw
    ) + 0.3 * torch.randn(400, 96, generator=draw)
    seen = InputStats(96, CPU)
    seen.add(inputs)
    weight = torch.randn(32, 96, generator=draw)
    weight[weight.abs() < 0.7] = 0
    config, zeros = GPTQ(bits=3, group_size=32), weight == 0
    kept = compress(config, weight, seen).to_dense()
    filled = compress(config, weight + 1e-9 * zeros, seen).to_dense()
    assert not kept[zeros].any() and filled[zeros].any()
    assert summed_output_error(weight - kept, seen) < 0.95 * summed_output_error(
        weight - filled.masked_fill(zeros, 0), seen
    )


# --- whole runs -----------------------------------------------------------------------------------


def carried_out(architecture, folders, where, *steps):
    where.mkdir(exist_ok=True)
    recipe = recipe_for(architecture, folders[architecture], where / "data", *steps)
    return run(recipe, save=where / "saved"), where / "saved", recipe


def stored_in(folder):
    at = load_model(resolve_model(str(folder)), CPU, torch.float32)
    return {layer.name: at.model.get_submodule(layer.name).stored for layer in at.layers}


@for_each("name", AFTER_PRUNING)
def test_the_saved_model_is_pruned_and_quantized(name, folders, tmp_path):
    architecture = list(ARCHITECTURES)[AFTER_PRUNING.index(name) % len(ARCHITECTURES)]
    outcome, save, recipe = carried_out(architecture, folders, tmp_path, PRUNED, ANY[name])
    again = run(recipe.model_copy(update={"model": str(save), "steps": ()})).summary
    assert again.result.loss == outcome.summary.result.loss
    assert (
        outcome.summary.result.size_bytes
        == sum(file.stat().st_size for file in save.glob("*.safetensors"))
        == outcome.tables.ledger.size_bytes.sum()
    )
    treated = outcome.tables.layers[outcome.tables.layers.technique != ""]
    assert (treated.sparsity >= 0.59).all() and (treated.relative_error > 0.05).all()
    assert not outcome.tables.storage.empty and outcome.tables.layers.name.is_unique


FACTORIZED = [
    "svd on llama",
    "svd on gpt2",
    "svd on bert",
    "tucker on resnet",
    "cp on resnet",
]
QUANTIZED = ["rounding", "nf4", "hqq", "codebook", "log", "fp8-e4m3", "ternary"]
FACTOR_STEPS = {
    "svd": {"technique": "svd", "whitening": "none", "kept": 0.5, "scope": "layer"},
    "tucker": {"technique": "tucker"},
    "cp": {"technique": "cp"},
}


@for_each(("factorized", "name"), covering(FACTORIZED, QUANTIZED))
def test_factorized_then_quantized_stores_quantized_factors(factorized, name, folders, tmp_path):
    first, architecture = factorized.split(" on ")
    outcome, save, recipe = carried_out(
        architecture, folders, tmp_path, FACTOR_STEPS[first], ANY[name]
    )
    again = run(recipe.model_copy(update={"model": str(save), "steps": ()})).summary
    assert again.result.loss == outcome.summary.result.loss
    written = sum(file.stat().st_size for file in save.glob("*.safetensors"))
    assert outcome.summary.result.size_bytes == written == outcome.tables.ledger.size_bytes.sum()
    factored = [stored for stored in stored_in(save).values() if stored.parts()]
    assert factored and all(
        part.kind != "dense" for stored in factored for part in stored.parts().values()
    )
    assert not outcome.tables.ranks.empty


@pytest.mark.parametrize(
    "first", [{"technique": "structured", "what": "neurons"}, {"technique": "blocks"}]
)
def test_a_model_with_removed_structures_passes_two_more_steps(first, folders, tmp_path):
    outcome, save, recipe = carried_out("llama", folders, tmp_path, first, PRUNED, ANY["gptq"])
    again = run(recipe.model_copy(update={"model": str(save), "steps": ()})).summary
    assert (
        again.result.loss == outcome.summary.result.loss
        and again.result.size_bytes == outcome.summary.result.size_bytes
    )
    assert (
        outcome.summary.result.parameters < outcome.summary.baseline.parameters
        and not outcome.tables.structures.empty
    )


@for_each("architecture", ARCHITECTURES)
def test_the_pair_is_smaller_than_either(architecture, folders, tmp_path):
    steps = PRUNED, ANY["rounding"]
    both, one, other = (
        carried_out(architecture, folders, tmp_path / str(number), *chosen)[0].summary.result
        for number, chosen in enumerate([steps, steps[:1], steps[1:]])
    )
    assert both.bits_per_weight < min(one.bits_per_weight, other.bits_per_weight)


def test_losses_are_counted_from_the_original_not_from_the_step_before(folders, tmp_path):
    outcome, save, _ = carried_out(
        "llama", folders, tmp_path, PRUNED, {"technique": "bitsandbytes", "format": "int8"}
    )
    original, now = stored_in(folders["llama"]), stored_in(save)
    compressed = outcome.tables.layers[outcome.tables.layers.technique != ""]
    assert len(compressed)
    for row in compressed.itertuples():
        before, after = original[row.name].to_dense(), now[row.name].to_dense()
        assert row.relative_error == pytest.approx(
            ((after - before).norm() / before.norm()).item(), rel=1e-4
        )


def test_each_step_says_which_it_is(folders, tmp_path):
    told = []
    recipe = recipe_for("llama", folders["llama"], tmp_path / "data", PRUNED, ANY["rounding"])
    run(recipe, report=lambda event: told.append(event.title))
    assert {"Step 1 of 2: compressing", "Step 2 of 2: compressing"} <= set(told)


def test_a_run_stopped_in_its_second_step_resumes_there(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "home"))
    recipe = recipe_for(
        "llama", folders["llama"], tmp_path / "data", {"technique": "sparsegpt"}, ANY["gptq"]
    )
    whole = run(recipe)
    seen = []

    def late() -> bool:
        return any(event.step == 2 and event.done > 8 for event in seen)

    with pytest.raises(Cancelled, match="Finished layers are kept"):
        run(recipe, report=seen.append, cancelled=late)
    again = run(recipe)
    assert again.summary.result == whole.summary.result
    assert "blocks were finished" in " ".join(again.summary.notes) and not list(
        (tmp_path / "home" / "unfinished").glob("*/block-*")
    )


@for_each(
    ("steps", "words"),
    [
        (
            (ANY["rounding"], PRUNED),
            (
                "cannot come after Round to nearest, which leaves quantized codes in place of "
                "weights; swap the two"
            ),
        ),
        ((PRUNED, ANY["wanda"]), "remove one of them"),
        ((ANY["nf4"], ANY["rounding"]), "remove one of them"),
        (
            (PRUNED, ANY["awq-salience"]),
            "which leaves zeros that it would not keep; remove one of them",
        ),
    ],
)
def test_an_order_that_is_not_possible_is_refused(steps, words):
    with pytest.raises(PlainError) as error:
        Recipe.from_dict({"steps": list(steps)})
    assert words in str(error.value)


@pytest.mark.usefixtures("bytes_alone")
@for_each(
    ("architecture", "first"),
    [
        ("llama", PRUNED),
        ("gpt2", {"technique": "magnitude", "pattern": "2:4"}),
        ("llama", FACTOR_STEPS["svd"]),
        ("resnet", FACTOR_STEPS["tucker"]),
        # a last group of one weight may need a float32 scale
        ("bert", {"technique": "structured", "what": "neurons", "share": 0.27}),
        ("llama", {"technique": "structured", "what": "heads"}),
        ("resnet", {"technique": "structured", "what": "channels"}),
    ],
)
@for_each("second", ["rounding", "nf4"])
def test_a_forecast_of_both_steps_is_exact(architecture, first, second, folders, tmp_path):
    outcome, _, recipe = carried_out(architecture, folders, tmp_path, first, ANY[second])
    ahead = forecast(recipe)
    assert ahead.size_bytes == outcome.summary.result.size_bytes
    assert (
        ahead.bits_per_weight == pytest.approx(outcome.summary.result.bits_per_weight, rel=1e-6)
        and ahead.seconds > 0
    )


@for_each(
    "first",
    [
        {"technique": "fine-tune"},
        {"technique": "lora", "merge": True},
        {"technique": "mixed-precision-training"},
    ],
)
@for_each("then", [{"technique": "structured", "what": "neurons"}, ANY["rounding"]])
def test_what_leaves_weights_in_their_place_is_no_matter_to_the_size_forecast(
    first, then, folders, tmp_path, monkeypatch
):
    monkeypatch.setattr("engine.interactive.run_forecast.cost_of", lambda job, past: Cost(1.0, 1.0))
    both, alone = (
        forecast(recipe_for("llama", folders["llama"], tmp_path / "data", *steps))
        for steps in ((first, then), (then,))
    )
    assert both == alone
