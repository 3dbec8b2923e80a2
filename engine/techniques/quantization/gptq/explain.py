"""GPTQ column by column: the codes and errors of the method itself, and the adjusted columns in
between.
"""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch

from engine.calibration import InputStats
from engine.results.schema.explanations import Explanation
from engine.results.schema.tables import NAN
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, frame, part_of
from engine.techniques.hooks import compress, explanation
from engine.techniques.quantization.gptq.config import GPTQ
from engine.techniques.quantization.gptq.method import RoundingSweep, rounding_sweep
from engine.techniques.quantization.gptq.tables import ReplayRow
from engine.techniques.quantization.grid import unsigned_codes

ROWS, PLACES = 12, 32  # rows of the weight, and columns in the order of rounding


@explanation.register
def explanation_gptq(config: GPTQ, compressed: CompressedLayer) -> Explanation:
    """Show the first columns in the order of rounding. Rows are independent, so a few
    rows suffice.
    """
    out, in_ = compressed.weight.shape
    replay = Replay.of(config, compressed.weight[:ROWS].contiguous(), compressed.stats)
    part = (
        f"{part_of('output rows', len(replay.rows), out)}; the first {len(replay.places)} of "
        f"{in_} columns to be rounded"
    )
    return Explanation(ReplayRow, replay.table(), empty_levels(), part)


@dataclass(frozen=True)
class Replay:
    """A weight before and after GPTQ. Columns are in rounding order; arrays are (in_, out)."""

    columns: RoundingSweep  # all rounded
    order: torch.Tensor  # (in_,) the column at each position
    # the weight as processed: weights of inputs that are always zero are set to zero
    before: torch.Tensor
    original: torch.Tensor
    rounded: torch.Tensor  # plainly
    gram: torch.Tensor  # (in_, in_)

    @classmethod
    def of(cls, config: GPTQ, weight: torch.Tensor, stats: InputStats) -> "Replay":
        columns, order = rounding_sweep(config, weight, stats)
        before = columns.weight.clone()
        columns.process(0, len(order))
        rounded = compress(config.rounding(), weight).to_dense()
        return cls(
            columns, order, before, weight.T[order], rounded.T[order], stats.gram[order][:, order]
        )

    @property
    def rows(self) -> torch.Tensor:
        return torch.arange(self.original.shape[1])

    @property
    def places(self) -> torch.Tensor:
        return torch.arange(min(PLACES, len(self.order)))

    def table(self) -> pd.DataFrame:
        """ReplayRow of every step, row and column shown, in this order."""
        return pd.concat(
            [self.after(step) for step in range(len(self.places) + 1)], ignore_index=True
        )

    def after(self, step: int) -> pd.DataFrame:
        """ReplayRow of every row and column shown after this many columns are rounded."""
        done = (torch.arange(len(self.order)) < step)[:, None]
        gptq, plain = (
            self.columns.values_after(step, self.before),
            torch.where(done, self.rounded, self.original),
        )
        grid = torch.meshgrid(self.rows, self.places, indexing="ij")[::-1]  # row by row
        return frame(
            ReplayRow,
            step=step,
            place=grid[0],
            row=grid[1],
            column=self.order[grid[0]],
            original=self.original[grid],
            gptq=gptq[grid],
            plain=plain[grid],
            code=self.codes.masked_fill(~done, NAN)[grid],
            gptq_error=self.share_lost(gptq),
            plain_error=self.share_lost(plain),
        )

    @cached_property
    def codes(self) -> torch.Tensor:
        """Codes as stored."""
        return unsigned_codes(self.columns.codes.clone(), self.columns.config.rounding()).float()

    def share_lost(self, weight: torch.Tensor) -> float:
        """|XW - XW^| / |XW| over the calibration data."""
        return (self.energy(weight - self.original) / self.whole) ** 0.5 if self.whole else 0.0

    @cached_property
    def whole(self) -> float:
        return self.energy(self.original)

    def energy(self, weight: torch.Tensor) -> float:
        """|XW|^2 over the calibration data."""
        return (self.gram @ weight).mul_(weight).sum().clamp_min(0).item()
