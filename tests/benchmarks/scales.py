"""Cost of storing scales in float16: perplexity of docs-lm with each way of rounding them, compared
with exact scales in float32.

    python -m tests.benchmarks.scales [--out FILE] [--only PATTERN ...] [--tokens 16384]

"±" is the paired standard error of the difference from float32, over the same windows. Groups reach
to their widest weight (range: absmax), where rounding decides which of two equally near levels it
takes. FILE keeps what was measured, as in ``tests.benchmarks.defaults``; all arithmetic takes one
thread.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.benchmarks.default_options import LM, Group
from tests.benchmarks.defaults import (
    Protocol,
    compress_and_open,
    losses,
    paired_difference,
    recipe_of,
)
from tests.benchmarks.resumable import append_line, stored_lines

GRIDS = {"groups of 32": 32, "groups of 128": 128, "one scale a row": 0}
STEPS = {
    f"{technique}, {bits} bits, {words}": {
        "technique": technique,
        "bits": bits,
        "range": "absmax",
        "scheme": "symmetric",
    }
    | ({"group_size": size} if size or technique == "gptq" else {"granularity": "channel"})
    for technique in ("round-to-nearest", "gptq")
    for bits in (2, 3)
    for words, size in GRIDS.items()
}
WAYS = ("nearest", "up", "down", "float32")
HEADER = (
    "| | nearest | up | down | float32 | bytes | bytes in float32 "
    "|\n|---|---:|---:|---:|---:|---:|---:|"
)


def rows(names: list[str], tokens: int, path: Path | None) -> Iterator[str]:
    for name in names:
        found = {way: scale_losses(name, way, tokens, path) for way in WAYS}
        exact = found["float32"]["each"]
        words = [
            f"{math.exp(sum(each) / len(each)):.3f}"
            + ("" if way == "float32" else f" ({paired_difference(each, exact)}%)")
            for way, each in ((way, found[way]["each"]) for way in WAYS)
        ]
        sizes = [f"{found[way]['size_bytes']:,}" for way in ("down", "float32")]
        yield "| " + " | ".join([name, *words, *sizes]) + " |"


def scale_losses(name: str, way: str, tokens: int, path: Path | None) -> dict:
    """Mean loss of each window and bytes of the files, stored or measured now."""
    from engine.techniques.quantization import grid

    identity = {"step": STEPS[name], "way": way, "tokens": tokens}
    for line in stored_lines(path):
        if identity.items() <= line.items():
            return line
    rounding = {
        "nearest": grid.nearest_float16,
        "up": above,
        "down": grid.float16_below,
        "float32": lambda scale: scale,
    }[way]
    kept, grid.float16_below = grid.float16_below, rounding
    try:
        recipe = recipe_of(Group(name, LM, STEPS[name], ()), {}, Protocol(tokens))
        with tempfile.TemporaryDirectory() as place:
            at, _ = compress_and_open(recipe, Path(place))
            each = [round(loss, 6) for loss in losses(at, tokens).tolist()]
            line = identity | {"size_bytes": at.size_bytes, "each": each}
    finally:
        grid.float16_below = kept
    append_line(path, line)
    return line


def above(scale):
    """The least float16 numbers that are not below the scales."""
    import torch

    nearest = scale.half()
    return torch.where(
        nearest.float() < scale,
        torch.nextafter(nearest, torch.full_like(nearest, torch.inf)),
        nearest,
    ).float()


def main() -> None:
    import torch

    from engine.runtime.worker_setup import setup_worker

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, help="JSON-lines file of what was measured, read and appended to"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="row, such as 'gptq, 2 bits*'",
    )
    parser.add_argument("--tokens", type=int, default=16_384, help="of docs-lm's test text")
    given = parser.parse_args()
    names = [
        name
        for name in STEPS
        if not given.only or any(fnmatch(name, pattern) for pattern in given.only)
    ]
    if not names:
        parser.error(f"no row is called {' or '.join(given.only)}; rows are {'; '.join(STEPS)}")
    setup_worker()
    torch.set_num_threads(1)
    print(HEADER, flush=True)
    for row in rows(names, given.tokens, given.out):
        print(row, flush=True)


if __name__ == "__main__":
    main()
