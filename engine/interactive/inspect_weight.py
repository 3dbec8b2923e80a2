"""Storage of single weights: the code of each, and the weights that share its scale. For other
kinds of storage, the weight and its error are shown next to its neighbors in the row.
"""

from dataclasses import dataclass, replace
from functools import singledispatch

import torch

from engine.results.schema.explanations import WeightCode
from engine.tensors.activations import WithQuantizedInputs
from engine.tensors.blockwise import TABLES, FourBit, RowInt8
from engine.tensors.codebook import CodebookWeight
from engine.tensors.floats import Float8
from engine.tensors.lookup_table import LookupTableWeight
from engine.tensors.outliers import ScaledColumns, WithOutlierColumns
from engine.tensors.packing import unpack_bits
from engine.tensors.weights import IntegerWeight, StoredWeight, TransposedWeight

NEIGHBOURS = 32  # shown around a weight


@dataclass(frozen=True)
class WeightLocation:
    """Code of one weight, and its neighbors: those that share its scale, if any."""

    rows: torch.Tensor  # (neighbors,) including the weight
    columns: torch.Tensor
    code: WeightCode | None = None
    # levels of its group's grid, as stored; None without a grid
    levels: torch.Tensor | None = None


@singledispatch
def weight_location(stored: StoredWeight, row: int, column: int) -> WeightLocation:
    return WeightLocation(*row_neighbors(row, column, stored.shape[1]))


@weight_location.register
def weight_location_integer(stored: IntegerWeight, row: int, column: int) -> WeightLocation:
    out, in_ = stored.shape
    position = column if stored.order is None else int((stored.order == column).nonzero())
    rows = stored.rows or (1 if len(stored.scales) > 1 else out)
    scale_index = (row // rows, position // stored.group_size if stored.scales.shape[1] > 1 else 0)
    first = scale_index[1] * stored.group_size
    width = min(stored.group_size, in_ - first)
    code, scale, zero = (
        int(codes_of_row(stored, row)[position]),
        float(stored.scales.float()[scale_index]),
        float(stored.zero_codes().float()[scale_index]),
    )
    positions = torch.arange(*neighbor_window(position - first, width)) + first
    return WeightLocation(
        torch.full_like(positions, row),
        positions if stored.order is None else stored.order[positions].long(),
        WeightCode(
            code,
            stored.bits,
            scale,
            code - zero,
            zero,
            width * min(rows, out - scale_index[0] * rows),
        ),
        (torch.arange(2**stored.bits) - zero) * scale,
    )


@weight_location.register
def weight_location_lookup_table(
    stored: LookupTableWeight, row: int, column: int
) -> WeightLocation:
    out, in_ = stored.shape
    scale_index = (
        row % len(stored.scales),
        column // stored.group_size if stored.scales.shape[1] > 1 else 0,
    )
    first = scale_index[1] * stored.group_size
    width = min(stored.group_size, in_ - first)
    code, scale, table = (
        int(stored.flat_codes()[row * in_ + column]),
        float(stored.scales.float()[scale_index]),
        stored.values(),
    )
    positions = torch.arange(*neighbor_window(column - first, width)) + first
    weight_code = WeightCode(
        code,
        stored.bits,
        scale,
        float(table[code]),
        shared_by=width if len(stored.scales) > 1 or out == 1 else out * in_,
    )
    return WeightLocation(
        torch.full_like(positions, row), positions, weight_code, table.sort().values * scale
    )


@weight_location.register
def weight_location_codebook(stored: CodebookWeight, row: int, column: int) -> WeightLocation:
    """The entries of a codebook are the levels for a scale of 1."""
    out, in_ = stored.shape
    codebook, code = (
        stored.books[row // stored.rows if len(stored.books) > 1 else 0],
        int(stored.indices()[row * in_ + column]),
    )
    rows = (
        min(stored.rows, out - row // stored.rows * stored.rows) if len(stored.books) > 1 else out
    )
    return WeightLocation(
        *row_neighbors(row, column, in_),
        WeightCode(code, stored.bits, 1.0, float(codebook[code]), shared_by=rows * in_),
        codebook,
    )


@weight_location.register
def weight_location_float8(stored: Float8, row: int, column: int) -> WeightLocation:
    out, in_ = stored.shape
    scale = 1.0 if stored.scales is None else float(stored.scales[row % len(stored.scales), 0])
    code, number = (
        int(stored.numbers.view(torch.uint8)[row, column]),
        float(stored.numbers[row, column]),
    )
    shared_by = in_ if stored.scales is not None and len(stored.scales) > 1 else out * in_
    return WeightLocation(
        *row_neighbors(row, column, in_),
        WeightCode(code, 8, scale, number, shared_by=shared_by),
        stored.finite_numbers().sort().values * scale,
    )


@weight_location.register
def weight_location_transposed(stored: TransposedWeight, row: int, column: int) -> WeightLocation:
    location = weight_location(stored.columns, column, row)
    return replace(location, rows=location.columns, columns=location.rows)


@weight_location.register
def weight_location_four_bit(stored: FourBit, row: int, column: int) -> WeightLocation:
    flat = row * stored.shape[1] + column
    block = flat // stored.block_size
    first = block * stored.block_size
    width = min(stored.block_size, stored.shape[0] * stored.shape[1] - first)
    byte, scale = int(stored.codes[flat // 2]), float(stored.block_absmax()[block])
    code = byte % 16 if flat % 2 else byte // 16
    positions = torch.arange(*neighbor_window(flat - first, width)) + first
    levels = torch.tensor(sorted(TABLES[stored.format])) * scale
    return WeightLocation(
        positions // stored.shape[1],
        positions % stored.shape[1],
        WeightCode(code, 4, scale, TABLES[stored.format][code], shared_by=width),
        levels,
    )


@weight_location.register
def weight_location_row_int8(stored: RowInt8, row: int, column: int) -> WeightLocation:
    code, scale = int(stored.codes[row, column]), float(stored.absmax[row]) / 127
    code = WeightCode(code, 8, scale, code, 0.0, stored.shape[1])
    return WeightLocation(
        *row_neighbors(row, column, stored.shape[1]), code, torch.arange(-127, 128) * scale
    )


@weight_location.register(WithQuantizedInputs)
@weight_location.register(ScaledColumns)
def weight_location_wrapped(
    stored: WithQuantizedInputs | ScaledColumns, row: int, column: int
) -> WeightLocation:
    return weight_location(stored.weight, row, column)


@weight_location.register
def weight_location_kept_columns(
    stored: WithOutlierColumns, row: int, column: int
) -> WeightLocation:
    inner = weight_location(stored.weight, row, column)
    return replace(inner, code=None, levels=None) if (stored.columns == column).any() else inner


@singledispatch
def column_factors(stored: StoredWeight) -> torch.Tensor:
    """Factor by which each column is multiplied before it is stored, (in_,)."""
    return torch.ones(stored.shape[1])


@column_factors.register
def column_factors_scaled_columns(stored: ScaledColumns) -> torch.Tensor:
    factors = torch.ones(stored.shape[1])
    factors[stored.columns.long()] = stored.factor
    return factors


def codes_of_row(stored: IntegerWeight, row: int) -> torch.Tensor:
    """Codes of one row in the order of storage, unpacked from its bytes only. (in_,) uint8"""
    begin, in_ = row * stored.shape[1], stored.shape[1]
    word = begin // 8  # eight codes fill whole bytes
    data = stored.codes[word * stored.bits : -(-(begin + in_) // 8) * stored.bits]
    return unpack_bits(data, stored.bits, begin + in_ - word * 8)[begin - word * 8 :]


def neighbor_window(position: int, width: int) -> tuple[int, int]:
    """Start and end of the at most NEIGHBOURS positions of a group that are shown around one of
    them.
    """
    begin = min(max(0, position // NEIGHBOURS * NEIGHBOURS), max(0, width - NEIGHBOURS))
    return begin, min(width, begin + NEIGHBOURS)


def row_neighbors(row: int, column: int, in_: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of a weight's neighbors in the row."""
    columns = torch.arange(*neighbor_window(column, in_))
    return torch.full_like(columns, row), columns
