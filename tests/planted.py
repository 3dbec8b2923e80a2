"""docs-lm in other weights that are the same function: what flows between norm and layer is large
in some channels and small in others, as it is in models of billions of parameters.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engine.recipe.model_names import BUNDLED_MODELS

WIDTH = 256
CHANNELS = (5, 77, 130)
NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
READERS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")


def few_large() -> torch.Tensor:
    """(WIDTH,) A factor a channel; powers of two, which no precision rounds."""
    return torch.ones(WIDTH).index_fill(0, torch.tensor(CHANNELS), 256.0)


def spread() -> torch.Tensor:
    """(WIDTH,) From an eighth to eight, at random."""
    return 2.0 ** torch.randint(-3, 4, (WIDTH,), generator=torch.Generator().manual_seed(0))


def save_rescaled_model(folder: Path, factors: torch.Tensor) -> str:
    """Writes it into ``folder``, which is made: norms multiply by the factors, the columns behind
    them divide.
    """
    shutil.copytree(BUNDLED_MODELS["docs-lm"].folder, folder)
    for path in folder.glob("*.safetensors"):
        tensors = {name: value.float() for name, value in load_file(path).items()}
        for name, value in tensors.items():
            if name.endswith(NORMS):
                value *= factors
            if name.endswith(READERS):
                value /= factors
        save_file(tensors, path, metadata={"format": "pt"})
    return str(folder)
