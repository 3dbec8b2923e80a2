"""Recognition of layers by their computation instead of their class.

Torch's classes and subclasses with the same forward pass are known. Any other module with a
``weight`` is tested on a small copy with random weights, once per class and configuration.
"""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

Kind = Literal["linear", "conv1d", "convolution1d", "conv2d", "embedding"]
KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: "linear",
    Conv1D: "conv1d",
    nn.Conv1d: "convolution1d",
    nn.Conv2d: "conv2d",
    nn.Embedding: "embedding",
}
PASSES = ("forward", "_conv_forward")  # methods that determine what a module computes
OUT, IN, ROWS = 5, 3, 7  # of the small copy
SIZES = {
    "out_features": OUT,
    "in_features": IN,
    "nf": OUT,
    "nx": IN,
    "num_embeddings": ROWS,
    "embedding_dim": IN,
}
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class LayerKind:
    name: Kind
    scale: float = 1.0  # name of the factor by which an embedding multiplies its rows


_tested_kinds: dict[tuple[Any, ...], LayerKind | None] = {}


def layer_kind(module: nn.Module) -> LayerKind | None:
    """Kind of a module that computes a linear map, convolution or lookup from its own ``weight``
    and ``bias``; otherwise None.

    Parametrized modules, whose weight is computed from other tensors, are not layers.
    """
    parameters = {name for name, value in module._parameters.items() if value is not None}
    if (
        "weight" not in parameters
        or parameters - {"weight", "bias"}
        or any(True for _ in module.children())
        or "forward" in vars(module)
    ):
        return None
    base = next((kind for kind in KINDS if isinstance(module, kind)), None)
    if (
        base
        and all(getattr(type(module), name, None) is getattr(base, name, None) for name in PASSES)
        and not renormalizes(module)
    ):
        return LayerKind(KINDS[base])
    if renormalizes(module) or module.weight.ndim not in (2, 3, 4):
        return None
    key = type(module), module.weight.ndim, *sorted(module_settings(module).items())
    if key not in _tested_kinds:
        _tested_kinds[key] = kind_by_testing(module)
    return _tested_kinds[key]


def renormalizes(module: nn.Module) -> bool:
    """Return True if an embedding modifies the rows that it reads."""
    return getattr(module, "max_norm", None) is not None


def module_settings(module: nn.Module) -> dict[str, str]:
    """Attributes that distinguish instances of a module's class, without sizes, as text."""
    plain = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple | None)
    }
    single = {
        name: value.item()
        for name, value in module._buffers.items()
        if value is not None and value.numel() == 1 and not value.is_meta
    }
    bias = {"bias": module._parameters.get("bias") is not None}
    return {
        name: repr(value)
        for name, value in (plain | single | bias).items()
        if name not in {*SIZES, "training", "padding_idx"}
    }


def kind_by_testing(module: nn.Module) -> LayerKind | None:
    """Kind found by testing; None if no plain function gives the module's outputs."""
    tests = {3: (convolution_kind,), 4: (convolution_kind,)}.get(
        module.weight.ndim, (linear_kind, embedding_kind)
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return next((found for test in tests if (found := result_or_none(test, module))), None)


def result_or_none(
    test: Callable[[nn.Module], LayerKind | None], module: nn.Module
) -> LayerKind | None:
    """Output of a module, or None: custom modules may raise any error for these inputs."""
    try:
        return test(module)
    except Exception:
        return None


def linear_kind(module: nn.Module) -> LayerKind | None:
    """x W^T + b, or x W + b for subclasses of Conv1D."""
    transposed = isinstance(module, Conv1D)
    for dtype in TOLERANCES:
        double = small_copy(module, (IN, OUT) if transposed else (OUT, IN), dtype)
        inputs = random_tensor((2, 4, IN), dtype)
        weight = double.weight.T if transposed else double.weight
        if not outputs_match(
            double(inputs), F.linear(inputs, weight, double._parameters.get("bias"))
        ):
            return None
    return LayerKind("conv1d" if transposed else "linear")


def embedding_kind(module: nn.Module) -> LayerKind | None:
    """c W[ids] with a constant c."""
    if module._parameters.get("bias") is not None:
        return None
    ids = torch.tensor([[4, 1, 6], [2, 2, 0]])
    ones = small_copy(module, (ROWS, IN), torch.float32)
    ones.weight.fill_(1)
    scale = ones(ids).flatten()[0].item()
    if not math.isfinite(scale) or not scale:
        return None
    for dtype in TOLERANCES:
        double = small_copy(module, (ROWS, IN), dtype)
        if not outputs_match(double(ids) / scale, double.weight[ids]):
            return None
    return LayerKind("embedding", scale)


def convolution_kind(module: nn.Module) -> LayerKind | None:
    """Convolution with the module's settings, as in torch's classes."""
    plain = {3: nn.Conv1d, 4: nn.Conv2d}[module.weight.ndim]
    if not isinstance(module, plain):
        return None
    for dtype in TOLERANCES:
        double = small_copy(module, tuple(module.weight.shape), dtype)
        reach = [
            dilation * (size - 1) + 1
            for dilation, size in zip(module.dilation, module.kernel_size, strict=True)
        ]
        inputs = random_tensor((2, module.in_channels, *(side + 2 for side in reach)), dtype)
        if not outputs_match(double(inputs), plain.forward(double, inputs)):
            return None
    return LayerKind(KINDS[plain])


def small_copy(module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    """Copy of the module with random weights of the given shape, on the CPU."""
    double = copy.copy(module)
    double._parameters = {"weight": nn.Parameter(random_tensor(shape, dtype), False)}
    rows = shape[1] if isinstance(module, Conv1D) else shape[0]
    double._parameters["bias"] = (
        nn.Parameter(random_tensor((rows,), dtype), False)
        if module._parameters.get("bias") is not None
        else None
    )
    double._buffers = {
        name: None if value is None else value.detach().cpu()
        for name, value in module._buffers.items()
    }
    double.training = False
    for name, size in SIZES.items():
        if hasattr(double, name):
            setattr(double, name, size)
    if hasattr(double, "padding_idx"):
        double.padding_idx = None
    return double


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape))).to(dtype)


def outputs_match(outputs: Any, expected: torch.Tensor) -> bool:
    """Return True if a module's output equals the expected one, within the precision of its
    inputs.
    """
    right = (
        isinstance(outputs, torch.Tensor)
        and outputs.dtype == expected.dtype
        and outputs.shape == expected.shape
    )
    return right and bool(
        (outputs - expected).norm() <= TOLERANCES[expected.dtype] * expected.norm()
    )
