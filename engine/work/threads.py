"""How many threads some work takes: those that wait for one another on a busy machine make small operations many times slower."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

NARROW = 1024  # up to which a matrix is decomposed by one thread
SMALL = 1_000_000  # weights of a model, below which a training step is over before threads have agreed on it


@contextmanager
def one_thread() -> Iterator[None]:
    """For hundreds of small operations, or one token at a time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def threads_for(shape: tuple[int, ...]) -> AbstractContextManager:
    """One for a matrix whose decomposition is thousands of small products: 6 s instead of 85 for all of a small model on a busy machine."""
    return one_thread() if min(shape) <= NARROW else nullcontext()


def threads_to_train(weights: int) -> AbstractContextManager:
    """One for a small model: a little slower on an idle machine, many times faster on a busy one."""
    return one_thread() if weights < SMALL else nullcontext()
