"""A cluster seen from the app: send work to it, and hear what became of that in sentences."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import dask

dask.config.set(logging={"distributed": "critical", "distributed.client": "critical"})  # what goes wrong is said on the page

from distributed import Client, Event, KilledWorker  # noqa: E402  sets its loggers up as it is imported

from engine.errors import PlainError  # noqa: E402
from engine.session.embedded import START_SECONDS, Embedded, started  # noqa: E402
from engine.session.remote import call, run_recipe, warmed  # noqa: E402

ADDRESS = "DASK_SCHEDULER_ADDRESS"
ANSWER_SECONDS = 5  # a named cluster may take to answer
OUTGROWN = "It needed more memory than a worker may use"
KILLED = "The process it ran in was killed, most often because the machine's memory ran out"
LOST = "The background processes were lost while this went on; new ones are started as soon as they are needed. Try again."
FOREIGN = "The cluster at {address} cannot import the engine; start its scheduler and workers with PYTHONPATH set to the app's folder."


class Cluster:
    """Safe to use from any number of threads. Everything that goes wrong is a PlainError."""

    def __init__(self, client: Client, embedded: Embedded | None = None):
        self.client, self.embedded = client, embedded

    @property
    def alive(self) -> bool:
        return self.client.status == "running" and (self.embedded is None or self.embedded.alive)

    def run_slots(self) -> int:
        """How many runs may go on at once: the workers that offer the resource "run", at least one."""
        return 1 if self.embedded else max(1, self._offering("run"))

    def ask(self, name: str, arguments: dict[str, Any], timeout: float) -> Any:
        """The answer of a function by its name."""
        job = self._submitted("ask", call, name, arguments, key=f"ask-{uuid4().hex}")
        try:
            return self._result(job, "Choose a smaller model or layer, or ask again.", timeout)
        except TimeoutError:
            job.cancel()
            raise PlainError(f"No answer within {timeout:.0f} seconds: {self._why_not()}. Try again in a moment.") from None

    def run(self, recipe: dict, run: str, keep: str, hear: Callable[[dict], None]) -> Any:
        """The outcome of a run, however long it takes. Its progress is heard meanwhile, in another thread. ``keep``: where its model may stay."""
        self.client.subscribe_topic(run, lambda event: hear(event[1]))
        try:
            job = self._submitted("run", run_recipe, recipe, run, keep, key=f"run-{run}")
            return self._result(job, "Choose a smaller model, fewer tokens or a shorter context, or give it more memory; then run it again.")
        finally:
            self._forget(run)

    def warm(self) -> None:
        """Have the embedded workers import what they will need."""
        modules = {"run": "engine.work.jobs", "ask": "engine.work.answers"}
        self._warming = [self._submitted(worker, warmed, module, key=f"warm-{worker}") for worker, module in modules.items()]

    def cancel(self, run: str) -> None:
        """Ask a run to stop before its next layer."""
        with suppress(Exception):  # with the cluster, the run is gone too
            Event(f"cancel-{run}", client=self.client).set()

    def close(self) -> None:
        with suppress(Exception):
            self.client.close(timeout=2)
        if self.embedded:
            self.embedded.stop()

    # -----------------------------------------------------------------------------------------------------------------

    def _forget(self, run: str) -> None:
        if self.alive:  # else each call would wait half a minute for a scheduler that is gone
            with suppress(Exception):
                self.client.unsubscribe_topic(run)
                Event(f"cancel-{run}", client=self.client).clear()

    def _submitted(self, worker: str, function: Callable, *arguments: Any, key: str) -> Any:
        try:
            restricted = {worker: 1} if self.embedded or self._offering(worker) else None
            return self.client.submit(function, *arguments, key=key, pure=False, resources=restricted)
        except Exception as error:
            raise self._plain(error) from None

    def _result(self, job: Any, advice: str, timeout: float | None = None) -> Any:
        try:
            return job.result(timeout)
        except (PlainError, TimeoutError):
            raise
        except KilledWorker as killed:
            raise PlainError(f"{self._why_killed(killed)}. {advice} Nothing else was lost.") from None
        except Exception as error:
            raise self._plain(error) from None

    def _plain(self, error: Exception) -> PlainError:
        if not self.alive:
            return PlainError(LOST)
        if "No module named 'engine" in f"{error}{error.__cause__}":
            return PlainError(FOREIGN.format(address=self.client.scheduler.address))
        return PlainError(f"The answer was lost on its way ({type(error).__name__}: {str(error)[:200]}). Try again.")

    def _why_killed(self, killed: KilledWorker) -> str:
        """A nanny notes the workers it stops at their memory limit; who else killed one, nobody knows."""
        time.sleep(0.2)  # the note travels beside the news
        with suppress(Exception):
            if any(note["worker"] == killed.last_worker.address for _, note in self.client.get_events("worker-restart-memory")):
                return OUTGROWN
        return KILLED

    def _why_not(self) -> str:
        with suppress(Exception):
            if not self._workers():
                return "the cluster has no workers at the moment"
        return "the machine may be busy"

    def _offering(self, resource: str) -> int:
        return sum(resource in worker.get("resources", {}) for worker in self._workers())

    def _workers(self) -> list[dict]:
        return list(self.client.scheduler_info(n_workers=-1)["workers"].values())


def connected() -> Cluster:
    """The cluster that DASK_SCHEDULER_ADDRESS names, else an embedded one. Raises PlainError."""
    address = os.environ.get(ADDRESS)
    if address:
        return named(address)
    embedded = started()
    try:
        cluster = Cluster(client_of(embedded.address), embedded)
    except BaseException:
        embedded.stop()
        raise
    cluster.warm()
    return cluster


def client_of(address: str) -> Client:
    """On a busy machine a scheduler's greeting may come out of turn, which distributed meets with an assertion: then once more."""
    try:
        return Client(address, timeout=START_SECONDS, set_as_default=False)
    except AssertionError:
        return Client(address, timeout=START_SECONDS, set_as_default=False)


def named(address: str) -> Cluster:
    try:
        return Cluster(Client(address, timeout=ANSWER_SECONDS, set_as_default=False))
    except (OSError, ValueError):
        raise PlainError(
            f"No cluster answers at {address[:200]!r} ({ADDRESS}); start one there and try again, or unset the variable to use the built-in one."
        ) from None
