"""Every option of torch's convolutions works in every family: padding modes, dilation, groups,
stride, bias.
"""

from itertools import product

import pytest
import torch
from torch import nn
from transformers.models.resnet.modeling_resnet import ResNetConvLayer

from engine.kernels import NoKernelError, supported_kernel
from engine.models.layers import layers_of, weight_matrix
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.models.packed_modules import install_packed_layers
from engine.pipeline.run import run
from engine.techniques.implementations import compress, plan
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.tensor_decomposition.config import CP, Tucker
from engine.techniques.quantization.grid import round_to_grid
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.tensors.activations import WithQuantizedInputs, qparams
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import ARCHITECTURES, tiny

PADDINGS = [((0, 0), "zeros"), ((2, 1), "zeros"), ("same", "zeros"), ("valid", "zeros")]
PADDINGS += [
    (padding, mode) for padding in ((2, 1), "same") for mode in ("reflect", "replicate", "circular")
]
# reported by torch's layers
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
KERNELS = [((3, 3), (1, 1)), ((2, 4), (1, 1)), ((3, 2), (2, 3))]  # size and dilation
OPTIONS = [
    {
        "kernel_size": kernel,
        "dilation": dilation,
        "padding": padding,
        "padding_mode": mode,
        "groups": groups,
        "bias": bias,
        "stride": stride,
    }
    for (kernel, dilation), (padding, mode), groups, bias, stride in product(
        KERNELS, PADDINGS, (1, 2), (True, False), ((1, 1), (2, 1))
    )
    if padding != "same" or stride == (1, 1)
]


def convolutions():
    """1-D and 2-D layers with every option, each with an input."""
    generator = torch.Generator().manual_seed(0)
    for options in OPTIONS:
        yield options, nn.Conv2d(8, 6, **options), torch.randn(2, 8, 11, 12, generator=generator)
        along = {
            name: value[1] if isinstance(value, tuple) else value for name, value in options.items()
        }
        yield along, nn.Conv1d(8, 6, **along), torch.randn(2, 8, 13, generator=generator)


def close(outputs: torch.Tensor, due: torch.Tensor, options: dict) -> None:
    torch.testing.assert_close(
        outputs, due, rtol=1e-4, atol=1e-5, msg=lambda words: f"{options}: {words}"
    )


def test_a_stored_convolution_computes_what_torchs_does():
    for options, layer, inputs in convolutions():
        model = nn.Sequential(layer).requires_grad_(False)
        due = model(inputs)
        close(install_packed_layers(model, {}, torch.float32)(inputs), due, options)


def test_the_vectors_that_calibration_sees_times_the_weight_are_the_outputs():
    for options, layer, inputs in convolutions():
        if options["groups"] == 1:
            weight, bias = (
                weight_matrix(layer).clone(),
                0 if layer.bias is None else layer.bias.detach(),
            )
            due = layer(inputs).detach().flatten(2).transpose(1, 2).flatten(0, 1)
            stored = install_packed_layers(
                nn.Sequential(layer).requires_grad_(False), {}, torch.float32
            )[0]
            close(stored.patches(inputs) @ weight.T + bias, due, options)


@pytest.mark.parametrize(
    "config",
    [SVD(kept=0.4, whitening="none"), Tucker(kept=0.5), CP(kept=0.5, iterations=2)],
    ids=lambda config: config.technique,
)
def test_factors_run_as_the_kernel_that_they_make(config):
    for options, layer, inputs in convolutions():
        if (
            options["groups"] > 1
            or (layer.weight.ndim == 3 and config.technique != "svd")
            or options["bias"]
        ):
            continue
        model = nn.Sequential(layer).requires_grad_(False)
        setting = plan(config, layers_of(model))["0"]
        stored = install_packed_layers(
            model, {"0": compress(setting, weight_matrix(layer).clone())}, torch.float32
        )
        assert stored[0].weight_factors(), options
        as_chain = stored(inputs)
        stored[0].unpacked = stored[0].weight
        close(as_chain, stored(inputs), options)


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_integer_products_equal_the_evaluated_outputs(scheme):
    """Padding before or after the rounding of inputs gives the same result."""
    config = RoundToNearest(bits=8, granularity="channel")
    for options, layer, inputs in convolutions():
        scale, zero = qparams(inputs.min()[None], inputs.max()[None], 8, scheme)
        grid = round_to_grid(weight_matrix(layer).clone(), config)
        weight = WithQuantizedInputs(grid.shape, grid, 8, scheme, "tensor", scale, zero)
        stored = install_packed_layers(
            nn.Sequential(layer).requires_grad_(False), {"0": weight}, torch.float32
        )[0]
        rounded = weight.quantized_inputs(inputs)
        with torch.no_grad():
            layer.weight.copy_(grid.to_dense().view(layer.weight.shape))
            close(stored(inputs), layer(rounded), options)
        try:
            close(supported_kernel(stored)(inputs), stored(inputs), options)
        except NoKernelError as none:
            assert "refuses" in str(none), options


# --- complete models ---------------------------------------------------------------------------

CYCLE = [  # cycled over a model's convolutions
    {"padding": "same", "kernel_size": 4},
    {"padding": "same", "padding_mode": "reflect"},
    {"padding_mode": "circular", "bias": True},
    {"padding_mode": "replicate", "groups": 2},
    {"dilation": 2, "padding": 2},
]
DEEPER = {"hidden_sizes": [12, 20, 16], "depths": [2, 2, 2]}
TECHNIQUES = [
    {"technique": "round-to-nearest"},
    {"technique": "activations"},
    {"technique": "gptq"},
    {"technique": "awq", "steps": 3},
    {"technique": "smoothquant"},
    {"technique": "llm-int8"},
    {"technique": "magnitude"},
    {"technique": "wanda"},
    {"technique": "sparsegpt"},
    {"technique": "structured"},
    {"technique": "svd"},
    {"technique": "tucker", "recovery": 2},
    {"technique": "cp"},
    {"technique": "qat", "steps": 2, "activation_bits": 8},
    {"technique": "lora", "steps": 2, "where": "all"},
    {"technique": "qlora", "steps": 2, "where": "all"},
]


def options_of(plain: nn.Conv2d) -> dict:
    """Options from CYCLE that keep the output size, by the layer's shape."""
    fitting = [
        options for options in CYCLE if plain.stride == (1, 1) or options.get("padding") != "same"
    ]
    options = dict(fitting[sum(size // 4 for size in plain.weight.shape[:2]) % len(fitting)])
    if plain.in_channels % 2:
        options.pop("groups", None)
    return options


@pytest.fixture
def varied_convolutions(monkeypatch):
    """ResNets whose convolutions have all kinds of options."""
    build = ResNetConvLayer.__init__

    def varied_build(self, *args, **kwargs):
        build(self, *args, **kwargs)
        plain = self.convolution
        known = {
            "kernel_size": plain.kernel_size,
            "padding": plain.padding,
            "bias": False,
            "stride": plain.stride,
        }
        self.convolution = nn.Conv2d(
            plain.in_channels, plain.out_channels, **known | options_of(plain)
        )

    monkeypatch.setattr(ResNetConvLayer, "__init__", varied_build)


def test_the_model_of_varied_convolutions_has_every_option(varied_convolutions):
    model = ARCHITECTURES["resnet"](**DEEPER)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert {module.padding_mode for module in layers} == {
        "zeros",
        "reflect",
        "circular",
        "replicate",
    }
    assert {module.groups for module in layers} == {1, 2} and (2, 2) in {
        module.dilation for module in layers
    }
    assert "same" in {module.padding for module in layers} and {
        module.bias is None for module in layers
    } == {True, False}


@for_each("step", TECHNIQUES, ids=lambda step: step["technique"])
@for_each("architecture", ["resnet", "efficientnet"])
def test_every_technique_goes_through_a_model_of_varied_convolutions(
    architecture, step, varied_convolutions, tmp_path, bytes_alone
):
    """The run evaluates the reloaded model and fails if a layer is unchanged."""
    recipe = recipe_for(
        architecture,
        tiny(architecture, tmp_path / "model", **DEEPER if architecture == "resnet" else {}),
        tmp_path / "data",
        step,
    )
    outcome = run(recipe.model_copy(update={"speed": step["technique"] in ("activations", "svd")}))
    layers = outcome.tables.layers
    convolutions = layers[layers.kind == "conv2d"]
    assert len(convolutions) > 3 and (layers.technique != "").any()
    untreated = layers[(layers.technique == "") & (layers.note == "")]
    if step["technique"] == "structured":  # squeeze-and-excite layers are not pruned
        groups = {
            layer.name: layer.groups
            for layer in load_model(
                resolve_model(recipe.model), torch.device("cpu"), torch.float32
            ).layers
        }
        untreated = untreated[untreated.name.map(groups) > 1]
    assert untreated.empty
    assert forecast(recipe).size_bytes > 0
