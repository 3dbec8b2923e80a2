"""Forecasts of sizes are those of the files."""

import pytest

from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.answers import forecast
from tests.cases import for_each
from tests.questions import STEPS
from tests.recipes import recipe_for
from tests.tiny import ARCHITECTURES


def size_written(recipe) -> int:
    return run(recipe).summary.result.size_bytes


@pytest.mark.usefixtures("bytes_alone")
@for_each("step", STEPS, ids=lambda step: "-".join(map(str, step.values())))
@for_each("architecture", ARCHITECTURES)
def test_the_forecast_is_the_size_of_the_files_to_the_byte(
    architecture, step, bfloat16_folders, tmp_path
):
    recipe = recipe_for(architecture, bfloat16_folders[architecture], tmp_path / "data", step)
    said, result = forecast(recipe), run(recipe).summary.result
    assert (
        said.size_bytes == result.size_bytes
        and said.bits_per_weight == result.bits_per_weight
        and said.compression == result.compression
    )


@pytest.mark.usefixtures("bytes_alone")
def test_a_forecast_counts_included_embeddings(bfloat16_folders, tmp_path):
    layers = {"skip": [], "include": ["*embed*"]}
    for architecture in ("llama", "llama-tied"):
        recipe = recipe_for(
            architecture, bfloat16_folders[architecture], tmp_path / "data", STEPS[0], layers=layers
        )
        assert forecast(recipe).size_bytes == size_written(recipe)


def test_a_forecast_of_no_steps_is_the_model_as_it_is(bfloat16_folders):
    said = forecast(Recipe(model=str(bfloat16_folders["llama"])).model_dump(mode="json"))
    assert said.size_bytes == (bfloat16_folders["llama"] / "model.safetensors").stat().st_size
    assert (said.bits_per_weight, said.compression, said.layers) == (
        16.0,
        1.0,
        0,
    ) and said.seconds > 0


def test_a_forecast_grows_with_the_bits_and_the_text(bfloat16_folders):
    def forecast_for(bits=4, tokens=1000):
        task = {"kind": "language-modeling", "tokens": tokens}
        return forecast(
            {
                "model": str(bfloat16_folders["llama"]),
                "task": task,
                "steps": [{**STEPS[0], "bits": bits}],
            }
        )

    assert (
        forecast_for(bits=2).size_bytes
        < forecast_for(bits=3).size_bytes
        < forecast_for(bits=8).size_bytes
    )
    assert forecast_for(tokens=10**6).seconds < forecast_for(tokens=10**7).seconds
