"""Peak memory of compression besides the model: a random bfloat16 Llama, each technique in its own
process.

python -m tests.benchmarks.memory [MILLIONS]

Blocks are counted in float32. Techniques that look at data get CALIBRATION; their Gram matrices and
the activations of one block count too. The target holds where no embedding or output layer is
compressed: the last row's layer is larger than a block.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.config.registry import TECHNIQUES
from tests.benchmarks.measurement import Measurement, show
from tests.benchmarks.models import text_in
from tests.benchmarks.stage_peaks import watched_stages
from tests.tiny import tiny

ROUNDING = {"technique": "round-to-nearest"}
OUTPUT_TOO = {"layers": {"skip": []}, "steps": [ROUNDING]}
RECIPES = {
    "4-bit rounding": {"steps": [ROUNDING]},
    "3-bit rounding, asymmetric, least squares": {
        "steps": [ROUNDING | {"bits": 3, "scheme": "asymmetric", "range": "mse"}]
    },
    "NF4, double quantization": {
        "steps": [{"technique": "bitsandbytes", "double_quantization": True}]
    },
    "INT8": {"steps": [{"technique": "bitsandbytes", "format": "int8"}]},
    "GPTQ": {"steps": [{"technique": "gptq"}]},
    "AWQ": {"steps": [{"technique": "awq", "steps": 5}]},
    "SmoothQuant": {"steps": [{"technique": "smoothquant"}]},
    "4-bit rounding of the output layer too": OUTPUT_TOO,
}
CALIBRATION = {"samples": 16, "context": 128}


@dataclass(frozen=True)
class Shape:
    width: int
    inner: int
    blocks: int
    vocabulary: int

    def save_model(self, folder: Path) -> Path:
        heads = self.width // 64
        sizes = {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.blocks,
            "vocab_size": self.vocabulary,
        }
        return tiny(
            "llama",
            folder,
            torch.bfloat16,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            **sizes,
        )


SHAPES = {120: Shape(768, 2048, 12, 24_576), 500: Shape(1280, 3456, 20, 40_000)}


def measurements(millions: int) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        model, text = (
            str(SHAPES[millions].save_model(Path(folder) / "model")),
            str(text_in(Path(folder))),
        )
        for what, recipe in RECIPES.items():
            command = [
                sys.executable,
                "-m",
                "tests.benchmarks.memory",
                json.dumps(
                    recipe | {"model": model, "device": "cpu", **calibration_field(recipe, text)}
                ),
            ]
            cost = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            name = (
                f"{millions} M parameters, {what}: memory held of {cost['block']:.0f} MB for a "
                f"block, {cost['layer']:.0f} MB for a layer"
            )
            target = "" if calibration_field(recipe, text) else "at most 2 blocks"
            yield Measurement(name, (cost["own"] / cost["block"],), "blocks", target)


def calibration_field(recipe: dict, text: str) -> dict:
    """The calibration, where the recipe's technique looks at data."""
    looks = TECHNIQUES[recipe["steps"][0]["technique"]].needs != "nothing"
    return {"calibration": CALIBRATION | {"text": text}} if looks else {}


def cost_of(recipe: dict) -> dict[str, float]:
    """Megabytes: the walk's peak, the largest block and the largest layer that is compressed."""
    from engine.models.layers import blocks_of, selected_layers
    from engine.models.loaded_model import device_and_dtype, load_model
    from engine.models.loading import resolve_model
    from engine.pipeline.blockwise import run_step
    from engine.pipeline.run import working_folder
    from engine.recipe import Recipe
    from engine.step.run_context import RunContext

    torch.set_num_threads(1)
    asked = Recipe.from_dict(recipe)
    bench = RunContext(asked, resolve_model(asked.model))
    original = load_model(bench.folder, *device_and_dtype(asked))
    targets = selected_layers(original.layers, asked.layers)
    blocks = [
        sum(layer.parameters for layer in block)
        for block in blocks_of(original.layers)
        if block[0].block
    ]
    import bitsandbytes  # noqa: F401, its code is not the walk's memory

    with working_folder(None) as out, watched_stages() as stages:
        run_step(bench, original, targets, out)
    return {
        "own": stages.overall_peak().own,
        "block": max(blocks) * 4 / 1e6,
        "layer": max(layer.parameters for layer in targets) * 4 / 1e6,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        print(json.dumps(cost_of(json.loads(sys.argv[1]))))
    else:
        show(measurements(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
