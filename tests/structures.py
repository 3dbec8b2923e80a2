"""Models with structures to prune, and pruned ones opened again."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

from engine.errors import PlainError
from engine.evaluation import calibration_batches
from engine.interactive.layer_preview import trial_on
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.step.pruning_plan import TechniqueInput
from tests.recipes import recipe_for
from tests.tiny import ARCHITECTURES

CPU = torch.device("cpu")
TRANSFORMERS = [name for name in ARCHITECTURES if name != "resnet"]
LAYERS = {  # a feed-forward's and an attention's reader, in block {}
    **dict.fromkeys(
        ("llama", "llama-tied", "qwen2"),
        ("model.layers.{}.mlp.down_proj", "model.layers.{}.self_attn.o_proj"),
    ),
    "gpt2": ("transformer.h.{}.mlp.c_proj", "transformer.h.{}.attn.c_proj"),
    "opt": ("model.decoder.layers.{}.fc2", "model.decoder.layers.{}.self_attn.out_proj"),
    "bert": ("bert.encoder.layer.{}.output.dense", "bert.encoder.layer.{}.attention.output.dense"),
}
KINDS = {"bert": AutoModelForSequenceClassification, "resnet": AutoModelForImageClassification}
STEPS = {
    "neurons": {"technique": "structured", "what": "neurons", "score": "l2"},
    "neurons-l1-global": {
        "technique": "structured",
        "what": "neurons",
        "share": 0.6,
        "score": "l1",
        "scope": "global",
    },
    "neurons-largest": {"technique": "structured", "what": "neurons", "score": "linf"},
    "neurons-activations": {"technique": "structured", "score": "activations"},
    "neurons-taylor-global": {"technique": "structured", "score": "taylor", "scope": "global"},
    "heads": {"technique": "structured", "what": "heads", "share": 0.5, "score": "l2"},
    "heads-taylor": {"technique": "structured", "what": "heads", "score": "taylor"},
    "heads-evenly": {
        "technique": "structured",
        "what": "heads",
        "share": 0.5,
        "score": "activations",
        "together": "queries",
    },
    "heads-global": {
        "technique": "structured",
        "what": "heads",
        "share": 0.3,
        "scope": "global",
        "score": "l2",
    },
}
CHANNELS = {
    "channels": {"technique": "structured", "score": "l2"},
    "channels-taylor-global": {
        "technique": "structured",
        "what": "channels",
        "score": "taylor",
        "scope": "global",
        "share": 0.4,
    },
    "channels-activations": {
        "technique": "structured",
        "what": "channels",
        "score": "activations",
        "share": 0.5,
    },
}
BLOCKS = {"blocks": {"technique": "blocks"}}


def error_message(architecture, folders, tmp_path, step, **fields) -> str:
    with pytest.raises(PlainError) as error:
        run(recipe_for(architecture, folders[architecture], tmp_path / "data", step, **fields))
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    return str(error.value)


def plain(architecture, folder):
    return KINDS.get(architecture, AutoModelForCausalLM).from_pretrained(folder).eval()


def open_saved(folder):
    return load_model(resolve_model(str(folder)), CPU, torch.float32)


def inputs_for(architecture) -> dict:
    if architecture == "resnet":
        return {
            "pixel_values": torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        }
    return {"input_ids": torch.arange(4, 68).view(2, 32)}


@torch.inference_mode()
def assert_alike(one, other, architecture):
    inputs = inputs_for(architecture)
    torch.testing.assert_close(one(**inputs).logits, other(**inputs).logits, rtol=1e-4, atol=1e-5)


def number_of(block: str) -> int:
    return int(block.rpartition(".")[2])


def plain_of_packed(architecture, folder):
    """The saved model as transformers makes it from its config.json alone, filled with the saved
    weights.
    """
    small, made = (
        open_saved(folder),
        KINDS.get(architecture, AutoModelForCausalLM)
        .from_config(AutoConfig.from_pretrained(folder))
        .eval(),
    )
    weights = {
        f"{layer.name}.weight": small.model.get_submodule(layer.name).stored.to_dense()
        for layer in small.layers
    }
    with torch.no_grad():
        for name, value in made.state_dict().items():
            turned = (
                isinstance(made.get_submodule(name.rpartition(".")[0]), Conv1D) and name in weights
            )
            given = weights.get(name, small.plain.get(name))
            value.copy_(given.T if turned else given.view(value.shape))
    return made


def subject_of(architecture, folders, tmp_path, step, data=True, **fields) -> TechniqueInput:
    recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", step, **fields)
    folder, original = resolve_model(str(folders[architecture])), open_saved(folders[architecture])
    batches = calibration_batches(recipe.calibration, recipe.task, folder) if data else []
    targets = frozenset(layer.name for layer in selected_layers(original.layers, recipe.layers))
    return TechniqueInput(original, folder, targets, trial_on(batches, recipe, original))
