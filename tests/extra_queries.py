"""Questions that only tests ask: slow ones, large ones, and ones that nothing answers.

Importing this module, as the app's side does, does not import torch.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from engine.interactive.registry import answer
from engine.quantities import duration
from engine.queries import Query


@dataclass(frozen=True)
class UnansweredQuery(Query[None]):
    """A question without a handler."""


@dataclass(frozen=True)
class WaitQuery(Query[str]):
    """Answered once a file exists."""

    file: str
    visitor: int = 0


@answer.register
def answer_wait(query: WaitQuery) -> str:
    while not Path(query.file).exists():
        time.sleep(0.1)
    return "done"


@dataclass(frozen=True)
class MemoryQuery(Query[int]):
    """Takes this much memory, 4 bytes for each number."""

    numbers: int


@answer.register
def answer_memory(query: MemoryQuery) -> int:
    import torch

    return len(torch.ones(query.numbers))


@dataclass(frozen=True)
class DurationQuery(Query[str]):
    """A duration in words."""

    seconds: float


@answer.register
def answer_duration(query: DurationQuery) -> str:
    return duration(query.seconds)
