"""Table rows about factorized layers: rank and break-even rank, and singular values with
the cut.
"""

from functools import singledispatch

import pandas as pd
import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.results.schema.tables import NAN
from engine.step.table_builder import TableBuilder
from engine.techniques.hooks import diagnostics
from engine.techniques.low_rank.options import LowRankTechnique
from engine.techniques.low_rank.tables import RankRow
from engine.tensors import low_rank as stored_lowrank
from engine.tensors.low_rank import (
    CPKernel,
    TuckerKernel,
    UnfactoredWeight,
    break_even_rank,
)
from engine.tensors.weights import StoredWeight

POINTS = 128  # of one layer's singular values, per version


@diagnostics.register
def diagnostics_low_rank(
    config: LowRankTechnique,
    layer: str,
    weight: torch.Tensor,
    stored: StoredWeight,
    stats: InputStats | GradientStats | None,
) -> TableBuilder:
    """Return the ranks of a convolution chain."""
    kept_energy = remaining_energy(weight, stored.to_dense() - weight)
    return TableBuilder(ranks=[rank_row(stored, layer, kept_energy)])


def remaining_energy(original: torch.Tensor, residual: torch.Tensor) -> float:
    """Share of the energy that is kept, 0 to 1."""
    return max(0.0, 1 - (residual.square().sum() / original.square().sum().clamp_min(1e-30)).item())


# --- ranks ----------------------------------------------------------------------------------------


@singledispatch
def rank_row(stored: StoredWeight, layer: str, kept_energy: float) -> RankRow:
    raise TypeError(f"{stored.kind} has no rank")


@rank_row.register
def rank_row_unfactored(stored: UnfactoredWeight, layer: str, kept_energy: float) -> RankRow:
    return RankRow(
        layer,
        min(stored.shape),
        NAN,
        min(stored.shape),
        break_even_rank(stored.shape),
        1.0,
        1.0,
        True,
    )


@rank_row.register
def rank_row_low_rank(
    stored: stored_lowrank.LowRankWeight, layer: str, kept_energy: float
) -> RankRow:
    share = stored.rank * sum(stored.shape) / (stored.shape[0] * stored.shape[1])
    return RankRow(
        layer,
        stored.rank,
        NAN,
        min(stored.shape),
        break_even_rank(stored.shape),
        share,
        kept_energy,
        False,
    )


@rank_row.register
def rank_row_tucker_kernel(stored: TuckerKernel, layer: str, kept_energy: float) -> RankRow:
    share = stored.nparameters / (stored.shape[0] * stored.shape[1])
    return RankRow(
        layer,
        stored.ranks[0],
        float(stored.ranks[1]),
        stored.shape[0],
        NAN,
        share,
        kept_energy,
        False,
    )


@rank_row.register
def rank_row_cp_kernel(stored: CPKernel, layer: str, kept_energy: float) -> RankRow:
    out, all_of = stored.shape[0], stored.shape[0] * stored.shape[1]
    axes = (out, stored.inputs.shape[1], stored.down.shape[1], stored.across.shape[1])
    return RankRow(
        layer,
        stored.rank,
        NAN,
        all_of // max(axes),
        all_of / sum(axes),
        stored.nparameters / all_of,
        kept_energy,
        False,
    )


# --- singular values ------------------------------------------------------------------------------


def singular_tables(layer: str, spectra: dict[str, torch.Tensor], rank: int) -> list[pd.DataFrame]:
    """SingularRow of every version, as a frame. Energies of randomized values are relative to the
    exact ones.
    """
    exact = spectra.get("whitened", spectra["plain"])
    wholes = {
        version: (exact if version == "randomized" else values)
        for version, values in spectra.items()
    }
    return [
        singular_table(layer, version, values, wholes[version], rank)
        for version, values in spectra.items()
    ]


def singular_table(
    layer: str, version: str, values: torch.Tensor, original: torch.Tensor, rank: int
) -> pd.DataFrame:
    energy = values.double().square().cumsum(0) / original.double().square().sum().clamp_min(1e-30)
    indices = shown_indices(len(values), rank)
    numbers = {
        "index": indices + 1,
        "singular_value": values[indices] / original[0].clamp_min(1e-30),
        "cumulative_energy": energy[indices],
        "kept": indices < rank,
    }
    return pd.DataFrame(
        {
            "layer": layer,
            "version": version,
            **{name: column.cpu().numpy() for name, column in numbers.items()},
        }
    )


def shown_indices(count: int, rank: int) -> torch.Tensor:
    """Indices of the values that are shown: all, or evenly spaced ones and both sides of
    the cut.
    """
    even = torch.linspace(0, count - 1, min(POINTS, count)).round().long()
    return torch.cat(
        [even, torch.tensor([rank - 1, min(rank, count - 1)]).clamp(0, count - 1)]
    ).unique()
