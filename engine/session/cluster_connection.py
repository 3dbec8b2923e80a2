"""Connection to the cluster, opened in the background once the first page is drawn, and reopened
when it is lost.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.errors import PlainError

if TYPE_CHECKING:
    from engine.session.cluster import Cluster


CLOSING = "The app is closing; start it again."
# seconds in which the first page has the processor to itself, unless the cluster is asked for
PAGE_FIRST = 2.5


class ClusterConnection:
    def __init__(self, page_first: float = PAGE_FIRST):
        self._lock, self._closed, self._wanted = threading.Lock(), False, threading.Event()
        self._making: Future[Any] = in_background(self._connected_soon, page_first)

    def cluster(self) -> "Cluster":
        """Return the cluster, after waiting until it has started.

        Raises PlainError if it cannot start; the next call tries again.
        """
        self._wanted.set()
        with self._lock:
            if self._closed:
                raise PlainError(CLOSING)
            if self._making.done() and not alive(self._making):
                in_background(close_when_made, self._making)
                self._making = in_background(import_and_connect)
            making = self._making
        try:
            return making.result()
        except PlainError:
            raise
        except Exception as error:
            raise PlainError(
                f"The background processes could not be started ({type(error).__name__}: "
                f"{str(error)[:200]}); try again."
            ) from None

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._wanted.set()
        close_when_made(self._making)

    def _connected_soon(self, page_first: float) -> "Cluster":
        self._wanted.wait(page_first)
        if self._closed:
            raise PlainError(CLOSING)
        return import_and_connect()


def import_and_connect() -> "Cluster":
    # half a second, which the first page need not wait for
    from engine.session.cluster import connect_cluster

    return connect_cluster()


def alive(making: Future[Any]) -> bool:
    return making.exception() is None and making.result().alive


def close_when_made(making: Future[Any]) -> None:
    with suppress(Exception):  # it never started
        making.result(timeout=30).close()


def in_background(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Run ``work`` in a daemon thread, because an executor's threads delay the end of the app."""
    future: Future[Any] = Future()
    threading.Thread(target=settle, args=(future, work, *arguments), daemon=True).start()
    return future


def settle(future: Future[Any], work: Callable[..., Any], *arguments: Any) -> None:
    try:
        future.set_result(work(*arguments))
    except BaseException as error:
        future.set_exception(error)
