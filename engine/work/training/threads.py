"""How many threads a training takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1_000_000  # weights: below, a step is over before threads have agreed on it, and on a busy machine they wait for one another


@contextmanager
def fitting_threads(weights: int) -> Iterator[None]:
    """One for a small model: a little slower on an idle machine, many times faster on a busy one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if weights < SMALL else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
