"""Gradients are those of the model's own weights."""

import pytest
import torch
from torch import nn

from engine.calibration.gradient_stats import accumulate_gradients
from engine.errors import PlainError
from engine.evaluation.calibration_batches import Batch
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.layer_report import NO_GRADIENT, why_not_seen
from engine.techniques.pruning.unstructured.config import (
    Taylor,
)
from engine.tensors.weights import DenseWeight
from tests.cases import for_each
from tests.tiny import tiny

CPU = torch.device("cpu")


@for_each("architecture", ["llama", "llama-tied", "gpt2", "bert", "resnet"])
def test_slopes_are_those_of_the_models_own_weights(tmp_path, architecture):
    """Against autograd through the plain transformers model."""
    at, batches = model_and_batches(tmp_path, architecture)
    names = [layer.name for layer in at.layers if layer.kind != "embedding" and not layer.tied_to][
        :4
    ]
    found = accumulate_gradients(at.model, names, batches, CPU, lambda *_: None)
    for name, (mean, square) in due_slopes(tmp_path, architecture, names, batches).items():
        torch.testing.assert_close(found[name].mean, mean, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(found[name].square, square, rtol=1e-3, atol=1e-9)


def model_and_batches(tmp_path, architecture: str) -> tuple:
    folder = resolve_model(str(tiny(architecture, tmp_path)))
    draw = torch.Generator().manual_seed(7)
    if architecture == "resnet":
        return load_model(folder, CPU, torch.float32), [
            {"pixel_values": torch.randn(3, 1, 16, 16, generator=draw)}
        ]
    return load_model(folder, CPU, torch.float32), [
        {"input_ids": torch.randint(5, 250, (2, 12), generator=draw)} for _ in range(2)
    ]


def due_slopes(
    tmp_path, architecture: str, names: list[str], batches: list[Batch]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
    )

    kinds = {"bert": AutoModelForSequenceClassification, "resnet": AutoModelForImageClassification}
    model = kinds.get(architecture, AutoModelForCausalLM).from_pretrained(tmp_path).eval()
    each: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for batch in batches:
        for row in range(len(next(iter(batch.values())))):
            example = {key: value[row : row + 1] for key, value in batch.items()}
            model.zero_grad()
            logits = model(**example).logits
            causal = architecture not in kinds
            labels = example["input_ids"][0, 1:] if causal else logits.argmax(-1)
            nn.functional.cross_entropy(logits[0, :-1] if causal else logits, labels).backward()
            for name in names:
                slope = model.get_submodule(name).weight.grad
                each[name].append((slope.T if architecture == "gpt2" else slope.flatten(1)).clone())
    return {
        name: (torch.stack(found).mean(0), torch.stack(found).square().mean(0))
        for name, found in each.items()
    }


def test_a_layer_that_the_loss_does_not_feel_is_kept_with_the_reason_and_none_at_all_is_refused(
    tmp_path,
):
    at, batches = model_and_batches(tmp_path, "llama")
    up = at.model.get_submodule("model.layers.0.mlp.up_proj")
    for module in (up, at.model.get_submodule("model.layers.0.mlp.down_proj")):
        module.stored = DenseWeight(module.stored.shape, torch.zeros(module.stored.shape))
    with pytest.raises(PlainError, match="no gradient for any"):
        accumulate_gradients(
            at.model, ["model.layers.0.mlp.up_proj"], batches, CPU, lambda *_: None
        )
    assert set(
        accumulate_gradients(
            at.model, ["model.layers.0.mlp.up_proj", "lm_head"], batches, CPU, lambda *_: None
        )
    ) == {"lm_head"}
    assert why_not_seen(Taylor(), up) == NO_GRADIENT
