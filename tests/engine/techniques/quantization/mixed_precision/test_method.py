"""Mixed precision against brute force and by hand, and the experiment on salient weights."""

import pytest
import torch

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.models.layers import Layer, selected_layers
from engine.models.loaded_model import device_and_dtype, load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.pipeline.statistics_pass import load_calibration_batches
from engine.recipe import Recipe
from engine.step.layer_swap import LayerSwap
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.techniques.implementations import compress, plan, predicted_bytes
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

Mixed = TECHNIQUES["mixed-precision"]
LAYERS = [
    Layer(f"model.layers.{i}.{name}", "linear", (64, 32 * (i + 1)), 4, "")
    for i in range(3)
    for name in ("up", "down")
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("llama"))


# --- who gets how many bits -----------------------------------------------------------------------


@for_each("solver", ["exact", "greedy"])
@for_each("budget", [3.0, 4.0, 5.5, 9.0])
def test_a_forecast_keeps_to_the_budget_and_uses_it(budget, solver):
    config = Mixed(budget=budget, solver=solver)
    spent = sum(
        predicted_bytes(each, layer.matrix_shape)
        for layer, each in zip(LAYERS, plan(config, LAYERS).values(), strict=True)
    )
    average = spent * 8 / sum(layer.parameters for layer in LAYERS)
    assert budget - 1.5 < average <= budget


def test_a_budget_that_cannot_be_met_is_one_sentence():
    with pytest.raises(
        PlainError,
        match=(
            r"budget of 2 bits per weight cannot be met: the coarsest setting, 2 bits in groups "
            r"of 32, takes 2\.50"
        ),
    ):
        plan(Mixed(budget=2), LAYERS)


def test_names_decide_in_their_order():
    config = Mixed(by="name", bits_by_name={"*.0.*": 8, "*.down": 2}, bits=5)
    bits = {name: each.bits for name, each in plan(config, LAYERS).items()}
    assert [bits[f"model.layers.{i}.{name}"] for i in range(3) for name in ("up", "down")] == [
        8,
        8,
        5,
        2,
        5,
        2,
    ]


def test_names_may_be_typed_as_lines():
    assert Mixed(by="name", bits_by_name="'*.down': 2\n'*.0.*': 8").bits_by_name == {
        "*.down": 2,
        "*.0.*": 8,
    }
    with pytest.raises(ValueError, match="one pattern per line"):
        Mixed(by="name", bits_by_name="{*: 3")


def test_a_pattern_that_fits_no_layer_is_one_sentence():
    with pytest.raises(PlainError, match="No layer to be compressed fits the pattern 'nothing'"):
        plan(Mixed(by="name", bits_by_name={"nothing": 3}), LAYERS)


# --- sensitivity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sensitivity", ["quantize-one", "restore-one"])
def test_sensitivities_are_the_divergences_that_a_rewrite_finds(sensitivity, llama, tmp_path):
    step = {
        "technique": "mixed-precision",
        "budget": 4.5,
        "choices": [2, 4],
        "sensitivity": sensitivity,
        "examples": 3,
    }
    recipe = recipe_for("llama", llama, tmp_path / "data", step)
    bench = RunContext(recipe, resolve_model(recipe.model))
    original = load_model(bench.folder, *device_and_dtype(recipe))
    targets, batches, rows = (
        selected_layers(original.layers, recipe.layers),
        load_calibration_batches(bench),
        TableBuilder(),
    )
    settings = plan(recipe.steps[0], targets, LayerSwap(bench, original, batches, rows))
    inputs = torch.cat([batch["input_ids"] for batch in batches])[:3]

    def answers(bits_of):
        other = load_model(bench.folder, *device_and_dtype(recipe)).model
        for layer in targets:
            if bits := bits_of(layer.name):
                module = other.get_submodule(layer.name)
                module.stored = compress(recipe.steps[0].rounding(bits), module.stored.to_dense())
        with torch.no_grad():
            return other(inputs).logits.double().log_softmax(-1)

    def divergence(changed, others):
        before, after = (
            answers(lambda layer: 0),
            answers(lambda layer: changed if layer == name else others),
        )
        return (before.exp() * (before - after)).sum(-1).mean().item()

    name = targets[2].name
    by_layer = {(row.layer, row.bits): row for row in rows.sensitivity}
    for bits in (2, 4):
        if sensitivity == "quantize-one":
            assert by_layer[name, bits].quantize_one == pytest.approx(
                divergence(bits, 0), rel=1e-3, abs=1e-7
            )
        else:
            assert by_layer[name, bits].restore_one == pytest.approx(
                divergence(bits, 2) - divergence(0, 2), rel=1e-3, abs=1e-6
            )
    assert {row.layer: row.bits for row in rows.sensitivity if row.chosen} == {
        n: config.bits for n, config in settings.items()
    }
    assert original.model.get_submodule(name).stored.kind == "dense"  # all was put back


def test_the_file_keeps_to_the_budget(llama, tmp_path):
    outcome = run(
        recipe_for(
            "llama",
            llama,
            tmp_path / "data",
            {"technique": "mixed-precision", "budget": 4.5, "scheme": "either"},
        )
    )
    assert 3.5 < outcome.summary.result.bits_per_weight <= 4.5
    assert set(outcome.tables.layers[outcome.tables.layers.technique != ""].technique) == {
        "round-to-nearest"
    }
    chosen_rows = outcome.tables.sensitivity[outcome.tables.sensitivity.chosen]
    sizes = outcome.tables.layers.set_index("name").size_bytes
    assert len(chosen_rows) > 1
    assert all(sizes[row.layer] == row.size_bytes for row in chosen_rows.itertuples())


def test_invalid_options_are_refused():
    for fields, said in (
        ({"choices": []}, "choices"),
        ({"by": "name", "scheme": "either"}, "either"),
    ):
        with pytest.raises(PlainError, match=said):
            Recipe.from_dict({"steps": [{"technique": "mixed-precision"} | fields]})
