"""Several steps on one layer: zeros stay zero, factors are compressed separately, and the result
has one size.
"""

from dataclasses import replace
from itertools import pairwise

import torch

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.config.technique import Technique
from engine.techniques.hooks import compress, nonzero_weights, storage_plan, with_adapter
from engine.tensors.low_rank import FactoredWeight
from engine.tensors.sparse_codes import preserve_zeros, preserve_zeros_plan
from engine.tensors.weights import StoredWeight


def compress_further(
    config: Technique,
    current: StoredWeight,
    weight: torch.Tensor,
    stats: InputStats | GradientStats | None,
    keep_zeros: bool,
) -> StoredWeight:
    """Return a layer that an earlier step stored as ``current``, compressed further. weight: (out,
    in_) float32, the dequantized ``current``
    """
    if (added := with_adapter(config, current)) is not None:
        return added
    if isinstance(current, FactoredWeight):
        return replace(
            current,
            **{
                field: compress(config, part.to_dense(torch.float32))
                for field, part in current.parts().items()
            },
        )
    zeros = weight == 0 if keep_zeros else None
    stored = compress(config, weight, *([stats] if stats else []))
    return stored if zeros is None or not zeros.any() else preserve_zeros(stored, zeros)


def storage_plan_of_steps(steps: list[Technique], shape: tuple[int, int]) -> StoredWeight:
    """Storage plan after all steps; exact if the number of weights that the first one keeps is
    known.
    """
    stored, nonzero = storage_plan(steps[0], shape), None
    for before, config in pairwise(steps):
        left = nonzero_weights(before, shape)
        nonzero = nonzero if left is None else left
        if (added := with_adapter(config, stored)) is not None:
            stored = added
        elif isinstance(stored, FactoredWeight):
            stored = replace(
                stored,
                **{
                    field: storage_plan(config, part.shape)
                    for field, part in stored.parts().items()
                },
            )
        else:
            stored = storage_plan(config, shape)
            stored = stored if nonzero is None else preserve_zeros_plan(stored, nonzero)
    return stored
