"""Hostile model folders, each opened, inspected, forecast and asked about as a page does.

    python -m tests.benchmarks.fuzz_models [FOLDERS [FIRST_SEED]]

Every folder must give an answer or a PlainError, within ten seconds of processor time and a limited
amount of memory. The last line gives the totals.
"""

import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from tests.hostile_models import asked_as_a_page, hostile, library

FOLDERS, SLOW_SECONDS = 1000, 10


def fuzz(folders: int, first: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # waiting threads count as processor time
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        bases = library(Path(scratch) / "library")
        for base in bases.values():
            (base / "text.txt").write_text("A sound model. " * 100)
            assert asked_as_a_page(base, calibrated=True).traceback == ""
        before, slowest = peak_bytes(), (0.0, "")
        for seed in range(first, first + folders):
            folder = Path(scratch) / f"model-{seed}"
            done = hostile(bases, folder, seed)
            began, grown = time.process_time(), peak_bytes()
            outcome = asked_as_a_page(folder, calibrated=seed % 4 == 0)
            took = time.process_time() - began
            slowest = max(slowest, (took, f"seed {seed}, {done}"))
            outcomes[
                "traceback" if outcome.traceback else "refused" if outcome.sentence else "answered"
            ] += 1
            outcomes["slow"] += took > SLOW_SECONDS
            grown = peak_bytes() - grown
            if outcome.traceback or took > SLOW_SECONDS or grown > 200e6:
                print(f"seed {seed}, {done}: {took:.1f} s, {grown / 1e6:.0f} MB more")
                print(outcome.traceback or outcome.sentence, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{folders} folders: {outcomes['answered']} answered, {outcomes['refused']} refused in a "
        f"sentence, {outcomes['traceback']} tracebacks, {outcomes['slow']} over {SLOW_SECONDS} s "
        f"of processor time"
    )
    print(f"most processor time: {slowest[0]:.1f} s ({slowest[1]})")
    more = peak_bytes() - before
    print(f"peak memory: {peak_bytes() / 1e6:.0f} MB, {more / 1e6:.0f} MB more than sound models")


def peak_bytes() -> int:
    """Maximum memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    fuzz(
        int(sys.argv[1]) if len(sys.argv) > 1 else FOLDERS,
        int(sys.argv[2]) if len(sys.argv) > 2 else 0,
    )
