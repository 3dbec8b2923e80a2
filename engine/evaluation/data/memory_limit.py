"""Limit on the memory that reading one file may take."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

LIMITED = resource is not None and sys.platform == "linux"  # elsewhere the system ignores the limit


@contextmanager
def limited_memory(limit_bytes: int) -> Iterator[None]:
    """Limit the address space of this process to ``limit_bytes`` more than it has now.

    Compressed or repeated values can unpack to any size, and no file format states it reliably.
    Allocations beyond the limit fail with MemoryError. Without effect outside Linux.
    """
    if not LIMITED:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + limit_bytes
    for other in (soft, hard):
        limit = limit if other == resource.RLIM_INFINITY else min(limit, other)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
