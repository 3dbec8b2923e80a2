"""Operations of a singular value decomposition."""

from engine.techniques.hooks import layer_operations
from engine.techniques.low_rank.options import WhitenedLowRank

SVD_PRODUCTS = 40.0  # times rows x columns x the smaller of both


@layer_operations.register
def layer_operations_whitened(config: WhitenedLowRank, shape: tuple[int, int]) -> float:
    """One SVD with vectors and two without, for finding ranks and showing the spectrum. LAPACK is
    slower than a matrix product.
    """
    return SVD_PRODUCTS * shape[0] * shape[1] * min(shape)
