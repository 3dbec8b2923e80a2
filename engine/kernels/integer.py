"""Layers with integer products: oneDNN's int8 kernels, which torchao's compiled int8 layers also
use.

Processors without VNNI instructions add two adjacent 8-bit products in 16 bits, which can overflow:
results are then about 10% off, without an error. There, the weight codes are split into two halves
that cannot overflow: exact, at twice the work.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from engine.kernels.kernel import Kernel, NoKernelError, kernel_for, require_linear
from engine.models.packed_modules import Unpacking, UnpackingConv2d
from engine.tensors.activations import WithQuantizedInputs, code_range
from engine.tensors.outliers import MixedInt8
from engine.tensors.packing import unpack_bits
from engine.tensors.weights import IntegerWeight, StoredWeight

UNSIGNED_SHIFT = (
    128  # added to signed input codes: oneDNN is several times faster with unsigned ones
)
MAX_SAFE_CODE = 64  # 2 x 255 x 64 < 2^15
SPLIT_WEIGHT_NOTE = (
    "this processor's 8-bit products overflow (no VNNI instructions), so weights are split into "
    "two halves: exact, at twice the work"
)


class Int8Product(nn.Module):
    """Products of input codes (uint8) with weight codes, times one scale for each output
    channel.
    """

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor):
        """``codes``: int8, (out, in_) or (out, in_, height, width). ``scales``: (out,) float32"""
        super().__init__()
        self.scales, self.zeros = scales, torch.zeros(len(codes), dtype=torch.int32)
        self.parts = [self.packed_weight(part) for part in overflow_free_parts(codes)]

    def forward(
        self, codes: torch.Tensor, scale: float, zero: int, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """scale * sum of (code - zero) * weight + bias, float32"""
        total = self.product(codes, scale, zero, self.parts[0], bias)
        for part in self.parts[1:]:
            total += self.product(codes, scale, zero, part, None)
        return total


class Int8MatrixProduct(Int8Product):
    def packed_weight(self, codes: torch.Tensor) -> torch.Tensor:
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


class Int8ConvolutionProduct(Int8Product):
    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, config: dict[str, Any]):
        self.config = [
            list(config["stride"]),
            list(config["padding"]),
            list(config["dilation"]),
            config["groups"],
        ]
        super().__init__(codes, scales)

    def packed_weight(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qconv_prepack(
            codes.contiguous(), self.scales, 1.0, 0, *self.config, None
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
            codes, scale, zero, weight, self.scales, self.zeros, bias, *self.config, *output
        )


def overflow_free_parts(codes: torch.Tensor) -> list[torch.Tensor]:
    """Two sets of codes that sum to these and cannot overflow on this processor."""
    if codes.abs().max() <= MAX_SAFE_CODE or not int8_products_overflow():
        return [codes]
    half = codes.div(2, rounding_mode="floor")
    return [half, codes - half]


@lru_cache(maxsize=1)
def int8_products_overflow() -> bool:
    """Return True if this processor's int8 products overflow at full range, found by a test
    product.
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


class Int8Kernel(Kernel):
    display_name = "oneDNN int8"
    tolerance = 1e-5

    def __init__(
        self, stored: StoredWeight, layer: Unpacking, codes: torch.Tensor, scales: torch.Tensor
    ):
        """``codes``: (out, in_) int8, ``scales``: (out,) float32"""
        super().__init__()
        self.stored, self.bias = stored, None if layer.bias is None else layer.bias.float()
        is_convolution = isinstance(layer, UnpackingConv2d)
        self.convolution = layer if is_convolution else None
        self.products = (
            Int8ConvolutionProduct(codes.view(layer.image_kernel), scales, layer.config)
            if is_convolution
            else Int8MatrixProduct(codes, scales)
        )
        self.note = SPLIT_WEIGHT_NOTE if len(self.products.parts) > 1 else ""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.convolution is None:
            return self.multiply(inputs)
        return self.convolution.signal(self.multiply(self.convolution.image(inputs)))

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of the layer; for a convolution, from padded inputs (examples, in_, height,
        width).
        """
        raise NotImplementedError


class StaticInt8Kernel(Int8Kernel):
    """One static range for all inputs."""

    def __init__(
        self,
        stored: WithQuantizedInputs,
        layer: Unpacking,
        codes: torch.Tensor,
        scales: torch.Tensor,
    ):
        super().__init__(stored, layer, codes, scales)
        self.scale, self.zero = stored.scale.item(), int(stored.zero.item()) + code_shift(stored)

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        codes = input_codes(self.stored, inputs.float(), self.stored.scale, self.stored.zero)
        return batched_product(self.products, codes, self.scale, self.zero, self.bias).to(
            inputs.dtype
        )


class DynamicInt8Kernel(Int8Kernel):
    """A dynamic range for each token or example."""

    def __init__(
        self,
        stored: WithQuantizedInputs,
        layer: Unpacking,
        codes: torch.Tensor,
        scales: torch.Tensor,
    ):
        super().__init__(stored, layer, codes, scales)
        self.row_sums = codes.sum(1, dtype=torch.float32) * scales  # (out,)

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.float()
        scale, zero = self.stored.dynamic_qparams(values)
        outputs = batched_product(
            self.products, input_codes(self.stored, values, scale, zero), 1.0, UNSIGNED_SHIFT
        )
        if self.stored.scheme == "asymmetric":
            outputs.addcmul_(UNSIGNED_SHIFT - zero, self.row_sums)
        outputs.mul_(scale)
        return add_bias(outputs, self.bias).to(inputs.dtype)


class OutlierInt8Kernel(Int8Kernel):
    """LLM.int8(): integer products for all but the outliers, with a scale for each token; outliers
    in floating point.
    """

    def __init__(self, stored: MixedInt8, layer: Unpacking):
        super().__init__(stored, layer, stored.weight.codes, stored.weight.absmax / 127)
        # (kept,), (out, kept)
        self.columns, self.values = stored.columns.long(), stored.values.float()

    def multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs.float()
        regular, outliers = values.index_fill(-1, self.columns, 0), values[..., self.columns]
        # outliers in columns that are not stored separately
        is_large = regular.abs() >= self.stored.threshold
        late = regular.masked_fill(~is_large, 0) if is_large.any() else None
        if late is not None:
            regular = regular.masked_fill(is_large, 0)
        scale = (regular.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-30)
        codes = regular.div(scale).round_().add_(UNSIGNED_SHIFT).to(torch.uint8)
        outputs = batched_product(self.products, codes, 1.0, UNSIGNED_SHIFT).mul_(scale)
        outputs += outliers @ self.values.T
        if late is not None:
            outputs += late @ self.stored.to_dense().T
        return add_bias(outputs, self.bias).to(inputs.dtype)


def code_shift(stored: WithQuantizedInputs) -> int:
    return UNSIGNED_SHIFT if stored.scheme == "symmetric" else 0


def input_codes(
    stored: WithQuantizedInputs, values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor
) -> torch.Tensor:
    """Codes as in ``WithQuantizedInputs.quantized_inputs``, shifted if signed. uint8"""
    lowest, highest = code_range(stored.bits, stored.scheme)
    return (
        values.div(scale)
        .add_(zero)
        .round_()
        .clamp_(lowest, highest)
        .add_(code_shift(stored))
        .to(torch.uint8)
    )


def batched_product(
    products: Int8Product,
    codes: torch.Tensor,
    scale: float,
    zero: int,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Reshape inputs with any number of leading axes; images are unchanged."""
    if isinstance(products, Int8ConvolutionProduct):
        return products(codes, scale, zero, bias).contiguous()
    return products(codes.flatten(0, -2), scale, zero, bias).unflatten(0, codes.shape[:-1])


def add_bias(outputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if bias is None:
        return outputs
    return outputs.add_(bias[:, None, None] if outputs.ndim == 4 else bias)


def signed_codes(grid: IntegerWeight) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of a grid with one scale per row and a zero point of zero, (out, in_) int8, and the
    scales, (out,) float32
    """
    codes = unpack_bits(grid.codes, grid.bits, grid.shape[0] * grid.shape[1]).view(grid.shape)
    return (codes.to(torch.int16) - 2 ** (grid.bits - 1)).to(
        torch.int8
    ), grid.scales.float().flatten().expand(grid.shape[0]).contiguous()


@kernel_for.register
def kernel_for_with_activations(stored: WithQuantizedInputs, layer: Unpacking) -> Int8Kernel:
    codes, scales = signed_codes(stored.weight)
    if stored.scale is not None:
        return StaticInt8Kernel(stored, layer, codes, scales)
    if isinstance(layer, UnpackingConv2d) and stored.scheme == "asymmetric":
        raise NoKernelError(
            "oneDNN's int8 convolution takes one zero point for all images: choose "
            "symmetric or static ranges of activations"
        )
    return DynamicInt8Kernel(stored, layer, codes, scales)


@kernel_for.register
def kernel_for_mixed_int8(stored: MixedInt8, layer: Unpacking) -> OutlierInt8Kernel:
    return OutlierInt8Kernel(stored, require_linear(layer, "products that set outliers apart"))
