"""Timing of functions in alternation, so that a busy moment of the machine affects all of them."""

import time
from collections.abc import Callable

import torch

MIN_REPEATS, MAX_REPEATS = 3, 20  # repetitions


class TimeBudget:
    """Seconds divided among the measurements that remain."""

    def __init__(self, seconds: float, shapes: int):
        self.end, self.shapes = time.perf_counter() + seconds, shapes

    def alternating_times(self, passes: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Milliseconds of each call of each function, in alternation, after a warm-up call; empty
        if no time is left.
        """
        start = time.perf_counter()
        left, self.shapes = self.end - start, self.shapes - 1
        if left <= 0:
            return {}
        for run in passes.values():
            run()
        synchronize()
        once = time.perf_counter() - start
        if once * MIN_REPEATS > 2 * left:
            return {}
        repeats = max(MIN_REPEATS, min(MAX_REPEATS, int(left / (self.shapes + 1) / once)))
        times: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(repeats):
            for name, run in passes.items():
                start = time.perf_counter()
                run()
                synchronize()
                times[name].append(1000 * (time.perf_counter() - start))
        return times


def synchronize() -> None:
    """Wait until a GPU has finished; its work runs asynchronously."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
