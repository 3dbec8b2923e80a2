"""Layers are recognized by computation: plain functions in any class are layers, look-alikes are
not.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from transformers.models.bart.modeling_bart import (
    BartLearnedPositionalEmbedding,
    BartScaledWordEmbedding,
)
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetDepthwiseConv2d
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding
from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralTopKRouter
from transformers.models.opt.modeling_opt import OPTLearnedPositionalEmbedding
from transformers.models.perceiver.modeling_perceiver import Conv2dSamePadding
from transformers.pytorch_utils import Conv1D

from engine.errors import PlainError
from engine.models.layer_kinds import layer_kind
from engine.models.layers import layers_of, selected_layers
from engine.models.packed_modules import install_packed_layers
from engine.pipeline.run import run
from engine.recipe import Layers
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny


class OwnLinear(nn.Module):
    """Linear map of an unknown class."""

    def __init__(self, out: int, in_: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(out, in_)), nn.Parameter(torch.randn(out))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.weight.T + self.bias


class OwnLookup(nn.Module):
    def __init__(self, rows: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids] * 3


class Gated(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs).relu()


class InFloat32(nn.Linear):
    """Computes in float32, as routers do, so its output has another number format."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.linear(inputs.float(), self.weight.float())


class Forgetful(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.linear(inputs, self.weight)


def replaced_forward() -> nn.Module:
    layer = nn.Linear(4, 3)
    layer.forward = lambda inputs: -F.linear(inputs, layer.weight, layer.bias)
    return layer


tokens = torch.tensor([[3, 1, 2], [0, 5, 5]])
PLAIN = {
    "linear": (nn.Linear(6, 4), torch.randn(2, 3, 6)),
    "falcon": (FalconLinear(6, 4), torch.randn(2, 3, 6)),
    "attention's output": (
        nn.modules.linear.NonDynamicallyQuantizableLinear(6, 4),
        torch.randn(2, 3, 6),
    ),
    "gpt2": (Conv1D(4, 6), torch.randn(2, 3, 6)),
    "own": (OwnLinear(4, 6), torch.randn(2, 3, 6)),
    "one axis": (nn.Conv1d(6, 4, 3, padding=1, stride=2), torch.randn(2, 6, 9)),
    "depthwise": (EfficientNetDepthwiseConv2d(6, 1, 3, padding="same"), torch.randn(2, 6, 9, 9)),
    "embedding": (nn.Embedding(9, 6, padding_idx=0), tokens),
    "own lookup": (OwnLookup(9, 6), tokens),
    "bart": (BartScaledWordEmbedding(9, 6, 1, embed_scale=2.5), tokens),
    "gemma": (Gemma3TextScaledWordEmbedding(9, 6, 0, embed_scale=6**0.5), tokens),
}
OTHER = {
    "gated": Gated(6, 4),
    "in float32": InFloat32(6, 4),
    "without its bias": Forgetful(6, 4),
    "router": MixtralTopKRouter(MixtralConfig(hidden_size=8, num_local_experts=4)),
    "positions of bart": BartLearnedPositionalEmbedding(9, 6),
    "positions of opt": OPTLearnedPositionalEmbedding(9, 6),
    "standardized": WeightStandardizedConv2d(6, 4, 3),
    "padded by a child": Conv2dSamePadding(6, 4, 3),
    "renormalized": nn.Embedding(9, 6, max_norm=100.0),
    "parametrized": parametrizations.weight_norm(nn.Linear(6, 4)),
    "replaced on the instance": replaced_forward(),
    "norm": nn.LayerNorm(6),
    "bag": nn.EmbeddingBag(9, 6),
    "transposed": nn.ConvTranspose1d(6, 4, 3),
    "two weights": nn.Bilinear(6, 4, 3),
}


@for_each("name", PLAIN)
def test_a_module_that_computes_a_plain_function_is_a_layer_and_runs_the_same_when_stored(name):
    module, inputs = PLAIN[name]
    model = nn.Sequential(module).eval()
    due = model(inputs)
    assert [layer.name for layer in layers_of(model)] == ["0"]
    torch.testing.assert_close(
        install_packed_layers(model, {}, torch.float32)(inputs), due, rtol=1e-6, atol=1e-6
    )


@for_each("name", OTHER)
def test_a_module_that_computes_anything_else_is_not_a_layer(name):
    assert layer_kind(OTHER[name]) is None


def test_finding_the_kind_does_not_change_the_module():
    module = BartScaledWordEmbedding(9, 6, 1, embed_scale=2.5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert layer_kind(module).scale == 2.5
    assert (
        all(torch.equal(before[name], value) for name, value in module.state_dict().items())
        and module.num_embeddings == 9
    )
    assert layer_kind(BartScaledWordEmbedding(9, 6, 1, embed_scale=0.5)).scale == 0.5


def test_a_layer_without_values_is_recognized():
    with torch.device("meta"):
        assert (
            layer_kind(FalconLinear(4096, 50_000)).name == "linear"
            and layer_kind(Gated(6, 4)) is None
        )


@for_each(
    "step",
    [
        {"technique": "gptq"},
        {"technique": "magnitude"},
        {"technique": "svd"},
        {"technique": "lora", "steps": 2},
    ],
    ids=str,
)
def test_falcon_is_compressed_like_any_other(step, tmp_path, bytes_alone):
    recipe = recipe_for("falcon", tiny("falcon", tmp_path / "model"), tmp_path / "data", step)
    layers = run(recipe).tables.layers.set_index("name")
    assert (
        len(layers[layers.technique != ""]) == 8
        and layers.technique["transformer.h.0.mlp.dense_4h_to_h"]
    )
    assert forecast(recipe).size_bytes > 0


@pytest.mark.parametrize(
    "step",
    [{"technique": "round-to-nearest"}, {"technique": "gptq"}, {"technique": "qat", "steps": 2}],
    ids=str,
)
def test_a_1d_convolution_is_a_layer_and_the_model_still_generates(step, tmp_path):
    """During generation Mamba reads the kernel itself, in torch's shape."""
    recipe = recipe_for("mamba", tiny("mamba", tmp_path / "model"), tmp_path / "data", step)
    outcome = run(recipe)
    row = outcome.tables.layers.set_index("name").loc["backbone.layers.0.mixer.conv1d"]
    assert (
        row.kind == "convolution1d"
        and tuple(row["shape"]) == (48, 1, 4)
        and (row.technique or "grouped" in row.note)
    )
    assert len(outcome.tables.samples)


def test_attention_that_reads_its_output_layers_weight_computes_the_same():
    attention, inputs = (
        nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False),
        torch.randn(2, 5, 8),
    )
    due, _ = attention(inputs, inputs, inputs)
    outputs, _ = install_packed_layers(attention, {}, torch.float32)(inputs, inputs, inputs)
    torch.testing.assert_close(outputs, due)


# --- no layer left -----------------------------------------------------------------------------


def model_of(**modules: nn.Module) -> nn.Module:
    return nn.ModuleDict(modules)


@for_each(
    ("model", "wanted", "words", "unsaid"),
    [
        (
            model_of(norm=nn.LayerNorm(3)),
            Layers(),
            "has no layer that can be compressed here",
            "skip",
        ),
        (model_of(tokens=nn.Embedding(5, 3)), Layers(), "layers.include", "layers.skip"),
        (
            model_of(lm_head=nn.Linear(5, 3)),
            Layers(),
            "names lm_head by default",
            "remove a pattern",
        ),
        (
            model_of(one=nn.Linear(5, 3)),
            Layers(skip=("one",)),
            "remove a pattern from Layers to skip (layers.skip)",
            "include",
        ),
    ],
)
def test_a_message_names_only_options_that_would_help(model, wanted, words, unsaid):
    with pytest.raises(PlainError) as refused:
        selected_layers(layers_of(model), wanted)
    assert words in str(refused.value) and unsaid not in str(refused.value)
