"""Table rows about corrected layers: rank of the correction, and singular values of the rounding
error.
"""

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.step.table_builder import TableBuilder
from engine.techniques.hooks import diagnostics
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.diagnostics import rank_row, remaining_energy, singular_tables
from engine.techniques.low_rank.svd.method import singular_values
from engine.techniques.low_rank.whitening import NO_WHITENING, whitening
from engine.tensors.low_rank import CorrectedWeight


@diagnostics.register
def diagnostics_low_rank_correction(
    config: LowRankCorrection,
    layer: str,
    weight: torch.Tensor,
    stored: CorrectedWeight,
    stats: InputStats | GradientStats | None,
) -> TableBuilder:
    """Return the singular values of the rounding error."""
    residual = weight - stored.base.to_dense()
    white = whitening(config, stats)
    spectra = {"plain": singular_values(NO_WHITENING, residual)} | (
        {} if white.is_plain else {"whitened": singular_values(white, residual)}
    )
    kept_energy = remaining_energy(white.whiten(residual), white.whiten(stored.to_dense() - weight))
    row = rank_row(stored.correction, layer, kept_energy)
    return TableBuilder(ranks=[row], singular=singular_tables(layer, spectra, row.rank))
