"""Size of a layer's inputs by token and channel, in blocks small enough for a screen."""

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from engine.calibration.activation_stats import InputStats

SIDE = 64  # blocks along each axis at most
MAX_SURFACES = 12  # surfaces of a run


def surface(layer: str, stats: InputStats, scales: torch.Tensor | None) -> pd.DataFrame:
    """SurfaceRow of one input, as a frame; both before and after if it was divided by ``scales``,
    (width,).
    """
    received = torch.cat(stats.vectors)
    versions = (
        {"original": received}
        if scales is None
        else {"original": received * scales, "scaled": received}
    )
    return pd.concat(
        [
            surface_rows(layer, version, channel_magnitudes(vectors, stats.area))
            for version, vectors in versions.items()
        ],
        ignore_index=True,
    )


def channel_magnitudes(vectors: torch.Tensor, area: int) -> torch.Tensor:
    """Magnitude of each input channel; for a convolution, the largest within the kernel. (vectors,
    width) -> (vectors, in_)
    """
    return vectors.abs().view(len(vectors), -1, area).amax(-1)


def surface_rows(layer: str, version: str, magnitudes: torch.Tensor) -> pd.DataFrame:
    rows_per_tile, columns_per_tile = (-(-size // SIDE) for size in magnitudes.shape)
    largest = block_maxima(magnitudes, rows_per_tile, columns_per_tile)
    rows, columns = np.indices(largest.shape)
    numbers = {
        "vector": rows.ravel() * rows_per_tile,
        "channel": columns.ravel() * columns_per_tile,
        "largest": largest.flatten().cpu().numpy(),
    }
    return pd.DataFrame({"layer": layer, "version": version, **numbers})


def block_maxima(
    magnitudes: torch.Tensor, rows_per_tile: int, columns_per_tile: int
) -> torch.Tensor:
    """Maximum of each tile; tiles at the ends may be smaller."""
    rows, columns = magnitudes.shape
    # zero padding does not change a maximum of magnitudes
    padded = F.pad(magnitudes, (0, -columns % columns_per_tile, 0, -rows % rows_per_tile))
    return (
        padded.unflatten(1, (-1, columns_per_tile)).unflatten(0, (-1, rows_per_tile)).amax((1, 3))
    )


def most_prominent(surfaces: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """At most MAX_SURFACES of the surfaces in their order: scaled ones first, then those with the
    most prominent block.
    """
    order = sorted(
        range(len(surfaces)),
        key=lambda index: (is_scaled(surfaces[index]), prominence(surfaces[index])),
        reverse=True,
    )
    return [surfaces[index] for index in sorted(order[:MAX_SURFACES])]


def is_scaled(surface: pd.DataFrame) -> bool:
    return bool((surface.version == "scaled").any())


def prominence(surface: pd.DataFrame) -> float:
    """Ratio of the largest block to the median block."""
    largest = surface.largest[surface.version == "original"]
    return largest.max() / max(largest.median(), 1e-30)
