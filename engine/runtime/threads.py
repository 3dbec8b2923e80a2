"""Number of threads for some work: on a busy machine, threads that wait for each other make small
operations many times slower.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

NARROW = 1024  # up to which a matrix is decomposed by one thread
# weights of a model, below which a training step is over before threads have agreed on it
SMALL = 1_000_000


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread for many small operations, or for one token at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def threads_for(shape: tuple[int, ...]) -> AbstractContextManager[Any]:
    """One thread for a matrix whose decomposition consists of thousands of small products: 6 s
    instead of 85 s for all of a small model on a busy machine.
    """
    return one_thread() if min(shape) <= NARROW else nullcontext()


def threads_to_judge(weights: int) -> AbstractContextManager[Any]:
    """One thread for ordinary layers of small models, whose live preview runs a hundred operations
    of under a millisecond: on a busy machine, waiting threads would take ten times as long.
    """
    return one_thread() if weights < SMALL else nullcontext()


def threads_to_train(weights: int) -> AbstractContextManager[Any]:
    """One thread for a small model: a little slower on an idle machine, many times faster on a busy
    one.
    """
    return one_thread() if weights < SMALL else nullcontext()
