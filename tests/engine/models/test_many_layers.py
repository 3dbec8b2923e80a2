"""Work grows with the number of layers, not with its square: experts make thousands of them."""

import cProfile
import pstats
from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.models.experts import RoutedExperts
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.models.routed_layers import split_experts
from engine.recipe import Layers
from engine.techniques.quantization.mixed_precision.bit_allocation import greedy_allocation
from tests.answers import forecast
from tests.experts import saved_of
from tests.recipes import recipe_for

FEW, MANY = 8, 64  # experts, of which a block has 4 or 16
TIMES = MANY / FEW
# as many calls; a square of experts would be 32 times as many, one of blocks 16 times
MOST = 1.25 * TIMES
CPU = torch.device("cpu")
STEPS = [
    {"technique": "round-to-nearest"},
    {"technique": "mixed-precision", "budget": 5.0},
    {"technique": "blocks"},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    sizes = {FEW: (4, 2), MANY: (16, 4)}
    return {
        count: saved_of(experts, tmp_path_factory.mktemp(str(count)) / "model", blocks)
        for count, (experts, blocks) in sizes.items()
    }


def calls_of(work: Callable[[], object]) -> int:
    profile = cProfile.Profile()
    profile.runcall(work)
    return pstats.Stats(profile).total_calls


def growth(work: Callable[[int], object]) -> float:
    """Ratio of the number of calls that ``work`` makes with MANY layers to that with few. It is
    called once before, because libraries are loaded and answers cached at first.
    """
    work(FEW)
    few, many = (calls_of(lambda count=count: work(count)) for count in (FEW, MANY))
    return many / few


def test_opening_a_model(folders):
    assert (
        growth(lambda count: load_model(resolve_model(str(folders[count])), CPU, torch.float32))
        < MOST
    )


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["technique"])
def test_a_forecast(step, folders, tmp_path, bytes_alone):
    recipes = {
        count: recipe_for("mixtral", folders[count], tmp_path / "data", step).model_dump(
            mode="json"
        )
        for count in folders
    }
    for recipe in recipes.values():
        forecast(recipe)
    assert growth(lambda count: forecast(recipes[count])) < MOST


def test_opening_the_layers_of_a_compressed_folder(folders):
    """Its experts may lie in the file as the original has them."""
    models = {
        count: load_pretrained(resolve_model(str(folder))) for count, folder in folders.items()
    }
    stacks = {}
    for count, model in models.items():
        stacks[count] = {}
        for path, module in model.named_modules():
            if isinstance(module, RoutedExperts):
                stacks[count] |= {
                    f"{path}.gate_up_proj": torch.empty(module.count, 40, 48),
                    f"{path}.down_proj": torch.empty(module.count, 48, 20),
                }
                stacks[count] |= {
                    f"{path}.{number}.norm": torch.empty(1) for number in range(module.count)
                }
    assert growth(lambda count: split_experts(models[count], stacks[count])) < MOST
    assert len(split_experts(models[MANY], stacks[MANY])[0]) == 3 * MANY


def test_which_layers_are_chosen(folders):
    layers = {
        count: load_model(resolve_model(str(folder)), CPU, torch.float32).layers
        for count, folder in folders.items()
    }
    assert growth(lambda count: selected_layers(layers[count], Layers(skip=("*.up_proj",)))) < MOST


def test_steps_from_candidate_to_candidate_are_looked_at_once():
    draw = np.random.default_rng(0)
    damage, sizes = (
        np.sort(draw.random((MANY, 6)))[:, ::-1],
        np.arange(1, 7) * np.ones((MANY, 1), dtype=int),
    )
    assert growth(lambda count: greedy_allocation(damage[:count], sizes[:count], 4 * count)) < MOST
    assert greedy_allocation(damage, sizes, 6 * len(damage)) == [5] * len(damage)


def test_experts_wake_no_threads_for_a_few_rows(folders, monkeypatch):
    """index_add_ starts all of torch's threads for each expert: 40 ms for two rows on a machine
    that is busy, instead of 6 microseconds.
    """
    model = load_pretrained(resolve_model(str(folders[MANY])))
    monkeypatch.setattr(torch.Tensor, "index_add_", None)
    with torch.inference_mode():
        assert model(input_ids=torch.arange(12)[None]).logits.isfinite().all()
