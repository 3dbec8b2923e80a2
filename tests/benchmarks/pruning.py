"""Ours against llm-compressor: SparseGPT and Wanda at 50% and 2:4 (how: see ``against``); then what
factorizing one layer takes.

On a random model perplexity says nothing; name a trained one as the third argument to compare it.
"""

from collections.abc import Iterator

from tests.benchmarks.against import THREADS, Contest, asked_for
from tests.benchmarks.measurement import Measurement, milliseconds

SHARES = {"50%": {"sparsity": 0.5}, "2:4": {"pattern": "2:4"}}
SPARSEGPT = [
    Contest(
        f"SparseGPT, {what}", {"technique": "sparsegpt"} | config, "llm-compressor", "at least 1.5"
    )
    for what, config in SHARES.items()
]
WANDA = [
    Contest(f"Wanda, {what}", {"technique": "wanda", "scope": "row"} | config, "llm-compressor")
    for what, config in SHARES.items()
]
MATRICES = (768, 768), (2048, 768), (768, 2048)
KERNELS = (64, 64, 3, 3), (256, 256, 3, 3)
TIMES = 3


def factorizations() -> Iterator[Measurement]:
    """A layer each, at half of its parameters."""
    import torch

    from engine.techniques.low_rank.svd.config import SVD
    from engine.techniques.low_rank.tensor_decomposition.config import CP, Tucker

    torch.set_num_threads(THREADS)
    for shape in MATRICES:
        for what, config in {
            "exact": {},
            "randomized": {"solver": "randomized"},
            "whitened": {"whitening": "svd-llm"},
        }.items():
            yield factorization_time(
                f"SVD of {shape[0]} x {shape[1]}, {what}",
                SVD(**{"kept": 0.5, "whitening": "none"} | config),
                shape,
            )
    for shape in KERNELS:
        for config in (Tucker(kept=0.5), CP(kept=0.5)):
            yield factorization_time(
                f"{config.title} of a kernel {' x '.join(map(str, shape))}", config, shape
            )


def factorization_time(what: str, config, shape: tuple[int, ...]) -> Measurement:
    import torch

    from engine.calibration import InputStats
    from engine.models.layers import Layer
    from engine.techniques.implementations import compress, plan

    layer = Layer("layer", "linear" if len(shape) == 2 else "conv2d", shape, 4, "")
    setting, weight, seen = plan(config, [layer])["layer"], torch.randn(layer.matrix_shape), None
    if config.needs == "gram":
        seen = InputStats(layer.matrix_shape[1], torch.device("cpu"), wants_gram=True)
        seen.add(torch.randn(4096, layer.matrix_shape[1]))
    given = (setting, weight) if seen is None else (setting, weight, seen)
    return Measurement(what, tuple(milliseconds(compress, [given] * TIMES)), "ms")


if __name__ == "__main__":
    asked_for([*SPARSEGPT, *WANDA])
    for measurement in factorizations():
        print(measurement, flush=True)
