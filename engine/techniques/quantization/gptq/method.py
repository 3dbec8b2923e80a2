"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): columns are rounded one after the other, and each
error is compensated by the columns after it.

All arrays are transposed, (in_, out): a column of the weight is a row in memory.
"""

from dataclasses import dataclass

import torch

from engine.calibration.activation_stats import InputStats
from engine.techniques.hooks import compress, meta_tensor, storage_plan
from engine.techniques.obs_sweep import ColumnSweep, hessian_factor
from engine.techniques.quantization.gptq.config import GPTQ
from engine.techniques.quantization.grid import (
    Levels,
    compact_scales,
    group_width,
    qparams_of_weight,
    unsigned_codes,
)
from engine.tensors.packing import pack_bits
from engine.tensors.weights import IntegerWeight


@dataclass
class RoundingSweep(ColumnSweep):
    """Rounding of one weight, with the grid of each group."""

    config: GPTQ
    group: torch.Tensor  # (in_,) the group of each column, ascending unless groups are static
    codes: torch.Tensor  # (in_, out)
    scales: torch.Tensor  # (groups, out)
    zeros: torch.Tensor
    fixed: bool  # scales are chosen in advance
    # (in_, out) whether a weight is to be more than zero, where some are zero already: they were
    # pruned
    stays: torch.Tensor | None

    def is_block(self, begin: int, end: int) -> bool:
        return super().is_block(begin, end) and self.shares_scales(begin, end)

    def shares_scales(self, begin: int, end: int) -> bool:
        return self.fixed or bool(self.group[begin] == self.group[end - 1])

    def split_point(self, begin: int, end: int) -> int:
        """Split point of the columns, moved to the start of a group so that its weights are up to
        date when its scale is chosen.
        """
        half = super().split_point(begin, end)
        if self.shares_scales(begin, end):
            return half
        starts = (
            (self.group[begin + 1 : end] != self.group[begin : end - 1]).nonzero().flatten()
            + begin
            + 1
        )
        return int(starts[(starts - half).abs().argmin()])

    def process_block(self, begin: int, end: int) -> None:
        levels, before = (
            Levels.of(self.config.rounding()),
            int(self.group[begin - 1]) if begin else -1,
        )
        # read once, because each access to a tensor's value waits for the device
        groups, pivots = self.group[begin:end].tolist(), self.factor.diagonal()[begin:end].tolist()
        for column, group, pivot in zip(range(begin, end), groups, pivots, strict=True):
            if not self.fixed and group != before:
                self.choose_scale(group)
            before = group
            weight, scale, zero = self.weight[column], self.scales[group], self.zeros[group]
            target = weight if self.stays is None else weight * self.stays[column]
            code = (
                torch.div(target, scale, out=self.codes[column])
                .round_()
                .add_(zero)
                .clamp_(levels.lowest, levels.highest)
            )
            error = torch.sub(weight, (code - zero).mul_(scale), out=self.errors[column]).div_(
                pivot
            )
            self.weight[column + 1 : end].addr_(
                self.factor[column, column + 1 : end], error, alpha=-1
            )

    def choose_scale(self, group: int) -> None:
        group_weights = self.weight[self.group == group]
        group_weights = (
            group_weights if self.stays is None else group_weights * self.stays[self.group == group]
        )
        scale, zero = qparams_of_weight(group_weights.T, self.config.rounding())  # (out, 1) each
        self.scales[group], self.zeros[group] = scale.flatten(), zero.flatten()


@compress.register
def compress_gptq(config: GPTQ, weight: torch.Tensor, stats: InputStats) -> IntegerWeight:
    """``weight``: (out, in_) float32"""
    columns, order = rounding_sweep(config, weight, stats)
    columns.process(0, len(order))
    rounding, reorders_groups = (
        config.rounding(),
        config.activation_order and not config.static_groups,
    )
    codes = columns.codes if reorders_groups else columns.codes[order.argsort()]
    return IntegerWeight(
        shape=tuple(weight.shape),
        bits=config.bits,
        group_size=group_width(rounding, weight.shape[1]),
        codes=pack_bits(unsigned_codes(codes.T.contiguous(), rounding), config.bits),
        scales=compact_scales(columns.scales.T.contiguous()),
        zeros=pack_bits(columns.zeros.T.to(torch.uint8), config.bits)
        if config.scheme == "asymmetric"
        else None,
        order=order.int() if reorders_groups else None,
    )


def rounding_sweep(
    config: GPTQ, weight: torch.Tensor, stats: InputStats
) -> tuple[RoundingSweep, torch.Tensor]:
    """State of the sweep in the order of rounding, and that order."""
    diagonal = stats.gram.diagonal() / stats.count
    order = (
        diagonal.argsort(descending=True, stable=True)
        if config.activation_order
        else torch.arange(len(diagonal), device=weight.device)
    )
    weight = weight * (diagonal > 0)  # an input that is always zero: its weights do not matter
    left = weight.T.contiguous()[order]
    group_of_position = torch.arange(len(order), device=weight.device) // group_width(
        config.rounding(), weight.shape[1]
    )
    if config.static_groups:
        scales, zeros = (
            params.T.contiguous() for params in qparams_of_weight(weight, config.rounding())
        )
    else:
        scales, zeros = torch.zeros(
            2, int(group_of_position[-1]) + 1, len(weight), device=weight.device
        )
    stays = left != 0
    factor = hessian_factor(stats, config.damping, order if config.activation_order else None)
    columns = RoundingSweep(
        left,
        factor,
        torch.empty_like(left),
        config,
        group_of_position[order] if config.static_groups else group_of_position,
        torch.empty_like(left),
        scales,
        zeros,
        config.static_groups,
        None if stays.all() else stays,
    )
    return columns, order


@storage_plan.register
def storage_plan_gptq(config: GPTQ, shape: tuple[int, int]) -> IntegerWeight:
    from dataclasses import replace

    plain = storage_plan(config.rounding(), shape)
    reorders_groups = config.activation_order and not config.static_groups
    return (
        replace(plain, order=meta_tensor(shape[1], dtype=torch.int32)) if reorders_groups else plain
    )
