"""Layers with integer products: oneDNN's int8 kernels, which torchao's compiled int8 layers use
too.

Processors without VNNI instructions add two adjacent 8-bit products in 16 bits, which can overflow:
results are then about 10% off, without an error. On these, the weight codes are split into two
halves that cannot overflow: exact, at twice the work.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from engine.kernels.kernel import Kernel, NoKernel, kernel_for, linear
from engine.models.packed_modules import Unpacking, UnpackingConv2d
from engine.tensors.activations import WithActivations, code_range
from engine.tensors.outliers import MixedInt8
from engine.tensors.packing import unpacked
from engine.tensors.weights import Grid, Stored

UNSIGNED = 128  # added to signed input codes: oneDNN is several times faster with unsigned ones
SAFE = 64  # 2 x 255 x 64 < 2^15
IN_HALVES = (
    "this processor's 8-bit products overflow (no VNNI instructions), so weights go in two "
    "halves: exact, for twice the work"
)


class Products(nn.Module):
    """Products of input codes (uint8) with weight codes, times one scale for each output
    channel.
    """

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor):
        """``codes``: int8, (out, in_) or (out, in_, height, width). ``scales``: (out,) float32"""
        super().__init__()
        self.scales, self.zeros = scales, torch.zeros(len(codes), dtype=torch.int32)
        self.parts = [self.prepacked(part) for part in halves(codes)]

    def forward(
        self, codes: torch.Tensor, scale: float, zero: int, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """scale * sum of (code - zero) * weight + bias, float32"""
        total = self.product(codes, scale, zero, self.parts[0], bias)
        for part in self.parts[1:]:
            total += self.product(codes, scale, zero, part, None)
        return total


class MatrixProducts(Products):
    def prepacked(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qlinear_prepack(codes.contiguous(), None)

    def product(
        self,
        codes: torch.Tensor,
        scale: float,
        zero: int,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        output = (1.0, 0, torch.float32, "none", [], "")
        return torch.ops.onednn.qlinear_pointwise(
            codes, scale, zero, weight, self.scales, self.zeros, bias, *output
        )


class PictureProducts(Products):
    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, how: dict[str, Any]):
        self.how = [list(how["stride"]), list(how["padding"]), list(how["dilation"]), how["groups"]]
        super().__init__(codes, scales)

    def prepacked(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qconv_prepack(
            codes.contiguous(), self.scales, 1.0, 0, *self.how, None
        )

    def product(
        self,
        codes: torch.Tensor,
        scale: float,
        zero: int,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        output = (1.0, 0, torch.float32, "none", [], "")
        return torch.ops.onednn.qconv_pointwise(
            codes, scale, zero, weight, self.scales, self.zeros, bias, *self.how, *output
        )


def halves(codes: torch.Tensor) -> list[torch.Tensor]:
    """Codes that add up to these and do not overflow here."""
    if codes.abs().max() <= SAFE or not overflows():
        return [codes]
    half = codes.div(2, rounding_mode="floor")
    return [half, codes - half]


@lru_cache(maxsize=1)
def overflows() -> bool:
    """Return True if this processor's int8 products overflow at full range, found by
    multiplying.
    """
    inputs, codes = (
        torch.full((32, 64), 255, dtype=torch.uint8),
        torch.full((32, 64), 127, dtype=torch.int8),
    )
    weight, zeros = (
        torch.ops.onednn.qlinear_prepack(codes, None),
        torch.zeros(32, dtype=torch.int32),
    )
    output = (1.0, 0, torch.float32, "none", [], "")
    product = torch.ops.onednn.qlinear_pointwise(
        inputs, 1.0, 0, weight, torch.ones(32), zeros, None, *output
    )
    return bool((product != 64 * 255 * 127).any())


class Int8(Kernel):
    called = "oneDNN int8"
    tolerance = 1e-5

    def __init__(self, stored: Stored, layer: Unpacking, codes: torch.Tensor, scales: torch.Tensor):
        """``codes``: (out, in_) int8, ``scales``: (out,) float32"""
        super().__init__()
        self.stored, self.bias = stored, None if layer.bias is None else layer.bias.float()
        picture = isinstance(layer, UnpackingConv2d)
        self.convolution = layer if picture else None
        self.products = (
            PictureProducts(codes.view(layer.image_kernel), scales, layer.how)
            if picture
            else MatrixProducts(codes, scales)
        )
        self.note = IN_HALVES if len(self.products.parts) > 1 else ""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.convolution is None:
            return self.multiply(inputs)
        return self.convolution.signal(self.multiply(self.convolution.image(inputs)))

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's outputs; of a convolution, from inputs with margins (examples, in_, height,
        width).
        """
        raise NotImplementedError


class StaticInt8(Int8):
    """One range for all inputs."""

    def __init__(
        self, stored: WithActivations, layer: Unpacking, codes: torch.Tensor, scales: torch.Tensor
    ):
        super().__init__(stored, layer, codes, scales)
        self.scale, self.zero = stored.scale.item(), int(stored.zero.item()) + shift(stored)

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        codes = input_codes(self.stored, inputs.float(), self.stored.scale, self.stored.zero)
        return shaped(self.products, codes, self.scale, self.zero, self.bias).to(inputs.dtype)


class DynamicInt8(Int8):
    """A range for each token or example, found while it runs."""

    def __init__(
        self, stored: WithActivations, layer: Unpacking, codes: torch.Tensor, scales: torch.Tensor
    ):
        super().__init__(stored, layer, codes, scales)
        self.row_sums = codes.sum(1, dtype=torch.float32) * scales  # (out,)

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.float()
        scale, zero = self.stored.range_of(values)
        outputs = shaped(
            self.products, input_codes(self.stored, values, scale, zero), 1.0, UNSIGNED
        )
        if self.stored.scheme == "asymmetric":
            outputs.addcmul_(UNSIGNED - zero, self.row_sums)
        outputs.mul_(scale)
        return with_bias(outputs, self.bias).to(inputs.dtype)


class OutlierInt8(Int8):
    """LLM.int8(): all but the outliers in whole numbers, with a scale for each token; outliers as
    they are.
    """

    def __init__(self, stored: MixedInt8, layer: Unpacking):
        super().__init__(stored, layer, stored.weight.codes, stored.weight.absmax / 127)
        # (kept,), (out, kept)
        self.columns, self.values = stored.columns.long(), stored.values.float()

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.float()
        rest, apart = values.index_fill(-1, self.columns, 0), values[..., self.columns]
        # outliers in columns that are not stored apart
        others = rest.abs() >= self.stored.threshold
        late = rest.masked_fill(~others, 0) if others.any() else None
        if late is not None:
            rest = rest.masked_fill(others, 0)
        scale = (rest.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-30)
        codes = rest.div(scale).round_().add_(UNSIGNED).to(torch.uint8)
        outputs = shaped(self.products, codes, 1.0, UNSIGNED).mul_(scale)
        outputs += apart @ self.values.T
        if late is not None:
            outputs += late @ self.stored.dense().T
        return with_bias(outputs, self.bias).to(inputs.dtype)


def shift(stored: WithActivations) -> int:
    return UNSIGNED if stored.scheme == "symmetric" else 0


def input_codes(
    stored: WithActivations, values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
) -> torch.Tensor:
    """Codes as in ``WithActivations.received``, shifted if signed.  uint8"""
    lowest, highest = code_range(stored.bits, stored.scheme)
    return (
        values.div(scale)
        .add_(zero)
        .round_()
        .clamp_(lowest, highest)
        .add_(shift(stored))
        .to(torch.uint8)
    )


def shaped(
    products: Products,
    codes: torch.Tensor,
    scale: float,
    zero: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Reshape inputs with any number of leading axes; images are unchanged."""
    if isinstance(products, PictureProducts):
        return products(codes, scale, zero, bias).contiguous()
    return products(codes.flatten(0, -2), scale, zero, bias).unflatten(0, codes.shape[:-1])


def with_bias(outputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if bias is None:
        return outputs
    return outputs.add_(bias[:, None, None] if outputs.ndim == 4 else bias)


def signed_codes(grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of a grid with one scale a row and none of the zero points, (out, in_) int8, and the
    scales, (out,) float32
    """
    codes = unpacked(grid.codes, grid.bits, grid.shape[0] * grid.shape[1]).view(grid.shape)
    return (codes.to(torch.int16) - 2 ** (grid.bits - 1)).to(
        torch.int8
    ), grid.scales.float().flatten().expand(grid.shape[0]).contiguous()


@kernel_for.register
def kernel_for_with_activations(stored: WithActivations, layer: Unpacking) -> Int8:
    codes, scales = signed_codes(stored.weight)
    if stored.scale is not None:
        return StaticInt8(stored, layer, codes, scales)
    if isinstance(layer, UnpackingConv2d) and stored.scheme == "asymmetric":
        raise NoKernel(
            "oneDNN's int8 convolution takes one zero point for all pictures: choose "
            "symmetric or static ranges of activations"
        )
    return DynamicInt8(stored, layer, codes, scales)


@kernel_for.register
def kernel_for_mixed_int8(stored: MixedInt8, layer: Unpacking) -> OutlierInt8:
    return OutlierInt8(stored, linear(layer, "products that set outliers apart"))
