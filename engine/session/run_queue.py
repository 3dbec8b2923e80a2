"""First come, first served."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class RunQueue(Generic[Item]):
    """A few threads that take one item after the other. They are daemons: an app that ends does not
    wait for them.

    One run a worker at a time: distributed would blame a dying worker on every run that waits for
    it.
    """

    def __init__(self, places: int, work: Callable[[Item], None]):
        self._waiting: SimpleQueue[Item] = SimpleQueue()
        self._work = work
        for place in range(places):
            threading.Thread(target=self._serve, name=f"run-{place}", daemon=True).start()

    def queue(self, item: Item) -> None:
        self._waiting.put(item)

    def _serve(self) -> None:
        while True:
            self._work(self._waiting.get())
