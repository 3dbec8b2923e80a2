"""Several steps on one layer: zeros stay zero, factors are compressed each by itself, and the pair
has one size.
"""

from dataclasses import replace
from itertools import pairwise

import torch

from engine.calibration import Seen
from engine.calibration.gradient_stats import Slopes
from engine.config.technique import Technique
from engine.techniques.hooks import beside, blueprint, compress, nonzero_weights
from engine.tensors.low_rank import Factored
from engine.tensors.sparse_codes import forecast_keeping_zeros, keeping_zeros
from engine.tensors.weights import Stored


def compress_further(
    how: Technique, held: Stored, weight: torch.Tensor, seen: Seen | Slopes | None, keep_zeros: bool
) -> Stored:
    """Return a layer that an earlier step stored as ``held``, compressed further. weight: (out,
    in_) float32, the dequantized ``held``
    """
    if (added := beside(how, held)) is not None:
        return added
    if isinstance(held, Factored):
        return replace(
            held,
            **{
                field: compress(how, part.dense(torch.float32))
                for field, part in held.parts().items()
            },
        )
    zeros = weight == 0 if keep_zeros else None
    stored = compress(how, weight, *([seen] if seen else []))
    return stored if zeros is None or not zeros.any() else keeping_zeros(stored, zeros)


def sketched(steps: list[Technique], shape: tuple[int, int]) -> Stored:
    """A blueprint of what all steps together will store; exact where it is known how many weights
    the first one leaves.
    """
    stored, nonzero = blueprint(steps[0], shape), None
    for before, how in pairwise(steps):
        left = nonzero_weights(before, shape)
        nonzero = nonzero if left is None else left
        if (added := beside(how, stored)) is not None:
            stored = added
        elif isinstance(stored, Factored):
            stored = replace(
                stored,
                **{field: blueprint(how, part.shape) for field, part in stored.parts().items()},
            )
        else:
            stored = blueprint(how, shape)
            stored = stored if nonzero is None else forecast_keeping_zeros(stored, nonzero)
    return stored
