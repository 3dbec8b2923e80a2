"""Golden files are small and name the versions that made them."""

from safetensors import safe_open

from tests.cases import for_each
from tests.goldens import FOLDER


@for_each("name", ["gptq", "smoothquant", "observers", "hqq", "pruning", "bitsandbytes"])
def test_every_golden_says_what_made_it_and_is_small(name):
    path = FOLDER / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        assert "torch 2.13.0" in file.metadata()["made with"]
    assert path.stat().st_size < 300_000
