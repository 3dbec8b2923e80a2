"""A worker's manners: all cores for the arithmetic, and no chatter of libraries in people's terminals."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

NARROW = 1024  # up to which a matrix is decomposed by one thread


def ready() -> None:
    """Workers start with one thread for arithmetic; take what the machine has. Libraries keep to errors."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    warnings.filterwarnings("ignore")
    for name in ("transformers", "datasets", "huggingface_hub", "bitsandbytes", "torch", "accelerate", "torchao"):
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "bitsandbytes" else logging.ERROR)


@contextmanager
def one_thread() -> Iterator[None]:
    """For hundreds of small operations: threads that wait for one another on a busy machine make them many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def threads_for(shape: tuple[int, ...]) -> AbstractContextManager:
    """One for a matrix whose decomposition is thousands of small products: 6 s instead of 85 for all of a small model on a busy machine."""
    return one_thread() if min(shape) <= NARROW else nullcontext()
