"""Layers whose weights are unpacked inside the product: torch's int4 and int8 weight-only kernels,
which torchao also uses. They compute in bfloat16, the only dtype in which they are fast on a CPU
(in float32 they were 50 to 200 times slower than a plain product).
"""

import torch

from engine.kernels.integer import add_bias, signed_codes
from engine.kernels.kernel import Kernel, NoKernelError, kernel_for, require_linear
from engine.models.packed_modules import Unpacking, UnpackingLinear
from engine.tensors.blockwise import FourBit, RowInt8
from engine.tensors.outliers import ScaledColumns, WithOutlierColumns
from engine.tensors.packing import unpack_bits
from engine.tensors.weights import IntegerWeight

GROUPS = (256, 128, 64, 32)  # group sizes of torch's int4 kernel
# what the kernels' rows and columns must be multiples of; beyond, torch 2.13 reads memory that is
# not its own
ROWS, COLUMNS = 16, 16
CENTER_CODE = 8  # the code of zero in torch's int4 format


class WeightOnlyKernel(Kernel):
    tolerance = 1e-2
    note = "computes in bfloat16"

    def __init__(self, layer: UnpackingLinear):
        super().__init__()
        self.bias = layer.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.product(inputs.flatten(0, -2).bfloat16()).to(inputs.dtype)
        return add_bias(outputs, self.bias).unflatten(0, inputs.shape[:-1])


class Int4WeightOnly(WeightOnlyKernel):
    display_name = "torch int4 weight-only"

    def __init__(self, grid: IntegerWeight, layer: UnpackingLinear, width: int):
        super().__init__(layer)
        codes, steps, zeros = int4_codes_and_steps(grid, width)
        self.width = width
        self.codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        # (groups, out, 2)
        self.params = torch.stack([steps, zeros], -1).transpose(0, 1).contiguous().bfloat16()

    def product(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(
            inputs, self.codes, self.width, self.params
        )


class Int8WeightOnly(WeightOnlyKernel):
    display_name = "torch int8 weight-only"

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, layer: UnpackingLinear):
        super().__init__(layer)
        if codes.shape[1] % COLUMNS:
            raise NoKernelError(
                f"torch's int8 kernel takes rows of a multiple of {COLUMNS} weights, and "
                f"these have {codes.shape[1]}"
            )
        self.codes, self.scales = codes.contiguous(), scales.bfloat16()

    def product(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._weight_int8pack_mm(inputs, self.codes, self.scales)


def int4_codes_and_steps(
    grid: IntegerWeight, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The grid in torch's int4 format: weight = step * (code - 8) + zero. (out, in_) int32, (out,
    groups) float32 x 2
    """
    codes = unpack_bits(grid.codes, grid.bits, grid.shape[0] * grid.shape[1]).view(grid.shape).int()
    steps, zero_codes = (
        values.float().expand(grid.shape[0], -1) for values in (grid.scales, grid.zero_codes())
    )
    if grid.zeros is None:  # shifts the codes, so that the format's zero is exact
        codes, zero_codes = (
            codes + CENTER_CODE - 2 ** (grid.bits - 1),
            torch.full_like(steps, CENTER_CODE),
        )
    group_columns = min(grid.group_size, grid.shape[1]) // width
    return codes, *(
        values.repeat_interleave(group_columns, 1)
        for values in (steps, steps * (CENTER_CODE - zero_codes))
    )


def int4_group_size(grid: IntegerWeight) -> int:
    """Group size in torch's int4 format. Raises NoKernelError if the grid does not fit."""
    out, in_ = grid.shape
    width = next(
        (width for width in GROUPS if grid.group_size % width == 0 and in_ % width == 0), None
    )
    if width is None or grid.order is not None:
        raise NoKernelError(
            "torch's int4 kernel needs full groups of "
            f"{', '.join(map(str, reversed(GROUPS)))}, and these do not fit"
        )
    if out % ROWS:
        raise NoKernelError(
            f"torch's int4 kernel takes a multiple of {ROWS} rows, and these are {out}"
        )
    return width


@kernel_for.register
def kernel_for_integer_weight(stored: IntegerWeight, layer: Unpacking) -> WeightOnlyKernel:
    layer = require_linear(layer, "torch's weight-only kernels")
    if stored.bits <= 4:
        return Int4WeightOnly(stored, layer, int4_group_size(stored))
    if stored.zeros is not None or stored.order is not None or stored.scales.shape[1] > 1:
        raise NoKernelError(
            "torch's int8 weight-only kernel takes one scale a row and no zero points"
        )
    return Int8WeightOnly(*signed_codes(stored), layer)


@kernel_for.register
def kernel_for_row_int8(stored: RowInt8, layer: Unpacking) -> WeightOnlyKernel:
    return Int8WeightOnly(
        stored.codes, stored.absmax / 127, require_linear(layer, "torch's weight-only kernels")
    )


@kernel_for.register
def kernel_for_four_bit(stored: FourBit, layer: Unpacking) -> WeightOnlyKernel:
    raise NoKernelError(
        f"torch has no CPU kernel that looks {stored.format.upper()} codes up in a table"
    )


@kernel_for.register(WithOutlierColumns)
@kernel_for.register(ScaledColumns)
def kernel_for_with_columns_or_scaled_columns(
    stored: WithOutlierColumns | ScaledColumns, layer: Unpacking
) -> WeightOnlyKernel:
    raise NoKernelError("no kernel supports a format with separately stored columns")
