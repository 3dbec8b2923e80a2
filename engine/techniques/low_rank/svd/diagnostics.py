"""Table rows about layers factorized by SVD: rank, and singular values with the cut."""

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.step.table_builder import TableBuilder
from engine.techniques.hooks import diagnostics
from engine.techniques.low_rank.diagnostics import rank_row, singular_tables
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.svd.method import fixed_rank, randomized_svd, singular_values
from engine.techniques.low_rank.whitening import NO_WHITENING, Whitening, whitening
from engine.tensors.low_rank import LowRankWeight
from engine.tensors.weights import StoredWeight


@diagnostics.register
def diagnostics_svd(
    config: SVD,
    layer: str,
    weight: torch.Tensor,
    stored: StoredWeight,
    stats: InputStats | GradientStats | None,
) -> TableBuilder:
    spectra = layer_spectra(config, weight, whitening(config, stats))
    rank = stored_rank(stored)
    values = spectra.get("whitened", spectra["plain"])
    kept_energy = (
        float(values[:rank].square().sum() / values.square().sum().clamp_min(1e-30))
        if values.any()
        else 1.0
    )
    return TableBuilder(
        ranks=[rank_row(stored, layer, kept_energy)], singular=singular_tables(layer, spectra, rank)
    )


def stored_rank(stored: StoredWeight) -> int:
    return stored.rank if isinstance(stored, LowRankWeight) else min(stored.shape)


def layer_spectra(config: SVD, weight: torch.Tensor, white: Whitening) -> dict[str, torch.Tensor]:
    """Singular values by version, largest first: those of the randomized solver and exact ones."""
    spectra = {"plain": singular_values(NO_WHITENING, weight)}
    if not white.is_plain:
        spectra["whitened"] = singular_values(white, weight)
    if config.solver == "randomized" and not (
        config.by == "energy" and getattr(config, "settled", None) is None
    ):
        spectra["randomized"] = randomized_svd(
            white.whiten(weight), fixed_rank(config, tuple(weight.shape)), config.iterations
        ).values
    return spectra
