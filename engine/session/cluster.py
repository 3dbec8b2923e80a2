"""The app's client of a cluster: submit runs and questions, and turn failures into messages."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import dask

# the page shows what goes wrong
dask.config.set(logging={"distributed": "critical", "distributed.client": "critical"})
# of the client's loop; the default of 20 ms uses 1% of a core for an unused statistic
dask.config.set({"distributed.admin.tick.interval": "1s"})

# distributed sets up its loggers when it is imported
from distributed import Client, Event, KilledWorker  # noqa: E402

from engine.errors import Cancelled, PlainError  # noqa: E402
from engine.events import Message, WorkerEvent, occupation  # noqa: E402
from engine.quantities import duration, megabytes  # noqa: E402
from engine.queries import Answer, Query  # noqa: E402
from engine.results.schema.outcome import Outcome  # noqa: E402
from engine.runtime import settings  # noqa: E402
from engine.runtime.local_paths import path_limit  # noqa: E402
from engine.runtime.settings import QUESTION_MEMORY  # noqa: E402
from engine.session import external_cluster as named  # noqa: E402
from engine.session.credentials import Security  # noqa: E402
from engine.session.local_cluster import (  # noqa: E402
    QUESTION_WORKERS,
    SPARE_WORKERS,
    START_SECONDS,
    LocalCluster,
    start_local_cluster,
)
from engine.session.worker_tasks import answer_query, preload_module, run_recipe  # noqa: E402

STOP_SECONDS = 30  # timeout for a worker's restart
GONE_SECONDS = 10  # timeout until a stopped worker has ended
WATCH_SECONDS = 2  # interval of checks on an external cluster's workers
OUT_OF_MEMORY = "It needed more memory than a worker may use"
QUESTION_OUT_OF_MEMORY = (
    "{subject} needed more than the {limit} of memory that a question may use ("
    + QUESTION_MEMORY
    + ")"
)
QUESTIONS_OUT_OF_MEMORY = (
    (
        "{subject} was stopped because all live questions together needed more than {limit} "
        "of memory ("
    )
    + QUESTION_MEMORY
    + " limits each of them to half)"
)
KILLED = "The process it ran in was killed, most often because the machine's memory ran out"
LOST = (
    "The background processes were lost during this run; new ones are started as soon as they "
    "are needed. Try again."
)
LOST_EXTERNAL = (
    "The connection to the cluster at {address} was lost; check that its scheduler runs, then "
    "try again."
)
LOST_WORKERS = (
    "The run's workers were lost one after another, most often because they ran out of memory; "
    "the last was {worker}"
)
CANCELLED = "The run was canceled while it waited for a worker."
FOREIGN = (
    "The cluster at {address} cannot import the engine; start its scheduler and workers with "
    "PYTHONPATH set to the app's folder."
)


class Cluster:
    """Client of a cluster. Thread-safe; its methods raise only PlainError."""

    def __init__(self, client: Client, embedded: LocalCluster | None = None):
        self.client, self.embedded = client, embedded
        # kept after the connection is lost
        self.address = embedded.address if embedded else client.scheduler.address
        self._cancelled: set[str] = set()  # runs to stop
        self._abandoned: set[str] = set()  # runs that did not stop

    @property
    def alive(self) -> bool:
        return self.client.status == "running" and (self.embedded is None or self.embedded.alive)

    def run_slots(self) -> int:
        """Number of concurrent runs: the workers that offer the resource "run", at least one."""
        return 1 if self.embedded else max(1, self._offering("run"))

    def question_slots(self) -> tuple[str, ...]:
        """Names of the resources of the question workers; on an external cluster they share one
        name.
        """
        return QUESTION_WORKERS if self.embedded else ("ask",) * max(1, self._offering("ask"))

    def spare_slots(self) -> tuple[str, ...]:
        """Names of the resources of workers that start when the others are busy with slow
        questions.
        """
        return SPARE_WORKERS if self.embedded else ()

    def start(self, slot: str) -> None:
        """Start the embedded spare worker that offers ``slot`` unless it runs."""
        if self.embedded:
            self.embedded.send("start", slot)

    def end(self, slot: str) -> None:
        """End the embedded spare worker that offers ``slot``."""
        if self.embedded:
            self.embedded.send("end", slot)

    def ask(self, query: Query[Answer], timeout: float, slot: str, subject: str) -> Answer:
        """Return the answer of the worker that offers ``slot``.

        The worker is replaced after ``timeout`` seconds. ``subject`` describes the question in
        messages, such as "the question about 'bundled:docs-lm'". Raises PlainError.
        """
        job = self._submit(slot, answer_query, query, path_limit(), key=f"ask-{uuid4().hex}")
        try:
            return self._result(
                job, "Choose a smaller model or layer, or ask again.", timeout, subject
            )
        except TimeoutError:
            ended = "its process was restarted" if self.embedded else "it was abandoned"
            why = (
                self._why_not()
                or f"{subject} takes longer, and {ended}. Choose a smaller model or layer"
            )
            self._stop(job, slot)
            raise PlainError(
                f"No answer within {duration(timeout)}: {why}, or try again in a moment."
            ) from None

    def replace(self, slot: str) -> None:
        """Kill the embedded worker that offers ``slot``; its nanny starts a new one."""
        if self.embedded:
            self.embedded.send("kill", slot)

    def run(
        self, recipe: dict[str, Any], run: str, keep: str, hear: Callable[[Message], None]
    ) -> Outcome:
        """Return the outcome of a run. Waits until it ends, without a time limit.

        ``hear`` is called with its progress, from another thread; its model may stay in ``keep``.
        Raises PlainError if the run fails, and Cancelled if it was canceled.
        """
        watch = named.RunWatch()

        def forward(event: tuple[float, dict[str, Any]]) -> None:
            message = Message.of(event[1])
            watch.hear(message)
            hear(message)

        self.client.subscribe_topic(run, forward)
        try:
            job = self._submit("run", run_recipe, recipe, run, keep, path_limit(), key=f"run-{run}")
            return self._result_of_run(job, run, watch, hear)
        finally:
            self._forget(run)

    def warm(self) -> None:
        """Have the embedded workers import what they will need."""
        modules = {"run": "engine.pipeline.job"} | dict.fromkeys(
            QUESTION_WORKERS, "engine.interactive.answers"
        )
        self._warming = [
            self._submit(worker, preload_module, module, key=f"warm-{worker}")
            for worker, module in modules.items()
        ]

    def cancel(self, run: str) -> None:
        """Ask a run to stop before its next layer."""
        self._cancelled.add(run)
        with suppress(Exception):  # with the cluster, the run is gone too
            Event(f"cancel-{run}", client=self.client).set()

    def stop(self, run: str) -> None:
        """End a run that does not stop by itself. The embedded cluster restarts its worker; on an
        external cluster the run is abandoned.
        """
        self._abandoned.add(run)
        with suppress(Exception):
            if self.embedded and any(
                f"run-{run}" in keys for keys in self.client.processing().values()
            ):
                self.client.restart_workers(["run"], timeout=STOP_SECONDS, raise_for_error=False)

    def close(self) -> None:
        with suppress(Exception):
            self.client.close(timeout=2)
        if self.embedded:
            self.embedded.stop()

    # ----------------------------------------------------------------------------------------------

    def _result_of_run(
        self, job: Any, run: str, watch: named.RunWatch, hear: Callable[[Message], None]
    ) -> Outcome:
        """Wait for a run's result. On an external cluster, also watch its workers and report what
        delays the run.
        """
        advice = (
            "Choose a smaller model, fewer tokens or a shorter context, or give it more memory; "
            "then run it again."
        )
        if self.embedded:
            return self._result(job, advice)
        shown: WorkerEvent | None = None
        while True:
            try:
                return self._result(job, advice, WATCH_SECONDS)
            except TimeoutError:
                delay = self._delay_of(job, watch)
            if run in self._abandoned or (run in self._cancelled and not watch.on_worker):
                job.cancel()
                raise Cancelled(CANCELLED)
            if delay and delay != shown:
                hear(Message(delay, time.time()))
            shown = delay

    def _delay_of(self, job: Any, watch: named.RunWatch) -> WorkerEvent | None:
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
        except Exception:  # the scheduler is gone, which the job reports
            return None
        try:
            return watch.delay(workers)
        except PlainError:
            job.cancel()
            raise

    def _forget(self, run: str) -> None:
        self._cancelled.discard(run)
        self._abandoned.discard(run)
        if self.alive:  # else each call would wait half a minute for a scheduler that is gone
            with suppress(Exception):
                self.client.unsubscribe_topic(run)
                Event(f"cancel-{run}", client=self.client).clear()

    def _stop(self, job: Any, slot: str) -> None:
        """End a question that takes too long, and wait until its worker has ended, so that the next
        question goes to the new one.
        """
        if self.embedded:
            self.embedded.send("kill", slot)
        else:
            with suppress(Exception):
                busy = [
                    worker for worker, keys in self.client.processing().items() if job.key in keys
                ]
                self.client.restart_workers(busy, timeout=GONE_SECONDS, raise_for_error=False)
        with suppress(Exception):
            job.result(GONE_SECONDS)
        job.cancel()

    def _submit(self, worker: str, function: Callable[..., Any], *arguments: Any, key: str) -> Any:
        try:
            restricted = {worker: 1} if self.embedded or self._offering(worker) else None
            return self.client.submit(
                function, *arguments, key=key, pure=False, resources=restricted
            )
        except Exception as error:
            raise self._plain(error) from None

    def _result(
        self, job: Any, advice: str, timeout: float | None = None, subject: str = "it"
    ) -> Any:
        try:
            return job.result(timeout)
        except (PlainError, TimeoutError):
            raise
        except KilledWorker as killed:
            raise PlainError(
                f"{self._why_killed(killed, subject)}. {advice} Nothing else was lost."
            ) from None
        except Exception as error:
            raise self._plain(error) from None

    def _plain(self, error: Exception) -> PlainError:
        if not self.alive:
            return PlainError(LOST if self.embedded else LOST_EXTERNAL.format(address=self.address))
        if "No module named 'engine" in f"{error}{error.__cause__}":
            return PlainError(FOREIGN.format(address=self.client.scheduler.address))
        return PlainError(
            f"The worker's answer could not be received ({type(error).__name__}: "
            f"{str(error)[:200]}). Try again."
        )

    def _why_killed(self, killed: KilledWorker, subject: str) -> str:
        """Explain a killed worker: nannies, and for questions the host, log workers that exceeded
        their memory limit.
        """
        time.sleep(0.2)  # the log event may arrive after the error
        with suppress(Exception):
            for _, note in self.client.get_events("worker-restart-memory"):
                if note["worker"] == killed.last_worker.address:
                    limit = note.get("limit", 0)
                    if not limit:
                        return OUT_OF_MEMORY
                    message = (
                        QUESTIONS_OUT_OF_MEMORY if note.get("together") else QUESTION_OUT_OF_MEMORY
                    )
                    return message.format(subject=sentence_case(subject), limit=megabytes(limit))
        return KILLED if self.embedded else LOST_WORKERS.format(worker=killed.last_worker.address)

    def _why_not(self) -> str:
        """Reason outside the question why there is no answer; empty if there is none."""
        with suppress(Exception):
            able = named.offering(self._workers(), "ask")
            if self.embedded:
                return ""
            busy = sum(map(named.busy, able))
            return occupation(len(able), busy) if busy == len(able) else ""
        return "the cluster does not answer; check it"

    def _offering(self, resource: str) -> int:
        return sum(resource in worker.get("resources", {}) for worker in self._workers())

    def _workers(self) -> list[dict[str, Any]]:
        return list(self.client.scheduler_info(n_workers=-1)["workers"].values())


def sentence_case(words: str) -> str:
    return words[:1].upper() + words[1:]


def connect_cluster() -> Cluster:
    """The cluster that DASK_SCHEDULER_ADDRESS names, else an embedded one. Raises PlainError."""
    if address := settings.scheduler():
        return Cluster(named.client_of(address))
    embedded = start_local_cluster()
    try:
        cluster = Cluster(client_of(embedded.address, embedded.security), embedded)
    except BaseException:
        embedded.stop()
        raise
    cluster.warm()
    return cluster


def client_of(address: str, security: Security | None = None) -> Client:
    """Connect to a scheduler. On a busy machine its handshake may arrive out of order, which
    distributed answers with an assertion: retry once.
    """
    try:
        return Client(address, timeout=START_SECONDS, set_as_default=False, security=security)
    except AssertionError:
        return Client(address, timeout=START_SECONDS, set_as_default=False, security=security)
