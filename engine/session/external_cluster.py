"""Connection to an existing cluster (DASK_SCHEDULER_ADDRESS), and messages about its state."""

import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from distributed import Client
from distributed.security import Security

from engine.errors import PlainError
from engine.events import Message, WorkerEvent, occupation
from engine.quantities import duration
from engine.runtime.settings import SCHEDULER

ANSWER_SECONDS = 5  # timeout for a connection
SILENT_SECONDS = 30  # workers send heartbeats about every second, also while they compute
LOST_SECONDS = 120  # a run fails after losing its worker and waiting this long for another
PREFIX = "DASK_DISTRIBUTED__COMM__TLS__"
CERTIFICATES = (
    f"set {PREFIX}CA_FILE, {PREFIX}CLIENT__CERT and {PREFIX}CLIENT__KEY to the PEM files of the "
    "cluster's certificates"
)


def client_of(address: str) -> Client:
    """Return a client of the cluster.

    Raises PlainError with the reason if there is no connection.
    """
    try:
        security = Security()  # from Dask's own configuration
        if uses_tls(address) and not (security.tls_ca_file and security.tls_client_cert):
            raise PlainError(
                f"{SCHEDULER} is {address[:200]!r}, but no certificates are configured; "
                f"{CERTIFICATES}."
            )
        security.get_connection_args("client")
    except (OSError, ValueError) as error:
        if isinstance(error, PlainError):
            raise
        raise PlainError(
            f"The certificates for the cluster cannot be read ({reason(error)}); {CERTIFICATES}."
        ) from None
    try:
        return Client(address, timeout=ANSWER_SECONDS, set_as_default=False, security=security)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise PlainError(why_no_client(address[:200], error)) from None


def uses_tls(address: str) -> bool:
    return address.strip().lower().startswith(("tls://", "wss://"))


def reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]


def why_no_client(address: str, error: Exception) -> str:
    """Explain a failed connection: nothing listens, only one side uses TLS, or certificates do not
    match.
    """
    match transport_at(address):
        case "tls" if not uses_tls(address):
            secure = f"tls://{address.rpartition('://')[2]}"
            return (
                f"The scheduler at {address!r} requires TLS; set {SCHEDULER} to {secure!r}, and "
                f"{CERTIFICATES}."
            )
        case "tls":
            return (
                f"The scheduler at {address!r} does not accept the configured certificates, or "
                "they do "
                f"not match its own; {CERTIFICATES}, all signed by the same CA."
            )
        case "plain" if uses_tls(address):
            plain = f"tcp://{address.rpartition('://')[2]}"
            return (
                f"The scheduler at {address!r} does not use TLS; start it with certificates, or "
                f"set {SCHEDULER} to {plain!r}."
            )
        case "plain":
            return (
                f"The server at {address!r} ({SCHEDULER}) does not answer as a Dask scheduler "
                f"({reason(error)}); check the address and versions."
            )
    return (
        f"No cluster answers at {address!r} ({SCHEDULER}); start one there and try again, or "
        "unset the variable to use the built-in one."
    )


def transport_at(address: str) -> Literal["none", "plain", "tls"]:
    """Detect whether the server at an address uses TLS, with a TLS handshake that accepts any
    certificate.
    """
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        connection = socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS)
    except (OSError, ValueError, TypeError, OverflowError):  # nothing listens, or not an address
        return "none"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connection:
        try:
            with context.wrap_socket(connection):
                return "tls"
        except ssl.SSLError as error:  # an alert means that the server wants a client certificate
            return "tls" if "ALERT" in (error.reason or "") else "plain"
        except OSError:  # timeout, or the connection was closed
            return "plain"


# --- state of the workers ------------------------------------------------------------------------


def offering(workers: Iterable[dict[str, Any]], resource: str) -> list[dict[str, Any]]:
    """Workers that can take a job for a resource: those that offer it, or all if none does."""
    workers = list(workers)
    return [worker for worker in workers if resource in worker.get("resources", {})] or workers


def busy(worker: dict[str, Any]) -> bool:
    executing = worker.get("metrics", {}).get("task_counts", {}).get("executing", 0)
    return executing >= worker.get("nthreads", 1)


def status(address: str) -> str:
    """Describe a cluster in one sentence: why it does not answer, or what its workers do."""
    try:
        client = client_of(address)
    except PlainError as error:
        return str(error)
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        able = offering(workers, "run")
        state = occupation(len(able), sum(map(busy, able)))
    return f"The cluster answers; {state}."


@dataclass
class RunWatch:
    """State of a run on an external cluster: on a worker, waiting for one, or lost."""

    worker: str = ""  # address of the last worker that reported; empty before the run starts
    # by address: the last heartbeat, and when it was first seen by this process
    beats: dict[str, tuple[float, float]] = field(default_factory=dict)
    lost_at: float | None = None

    def hear(self, message: Message) -> None:
        self.worker, self.lost_at = message.worker, None

    def delay(
        self, workers: dict[str, dict[str, Any]], now: float | None = None
    ) -> WorkerEvent | None:
        """Reason for the delay; None while its worker reports.

        ``workers`` are those of the scheduler, by address. Raises PlainError if the run is lost.
        """
        now = time.monotonic() if now is None else now
        able = offering(workers.values(), "run")
        if not self.worker:
            return WorkerEvent(cause="waiting", workers=len(able), busy=sum(map(busy, able)))
        if self.worker in workers:
            silent = self._silence(workers[self.worker].get("last_seen", 0.0), now)
            return WorkerEvent(cause="silent", seconds=silent) if silent >= SILENT_SECONDS else None
        if self.lost_at is None:
            self.lost_at = now
        if able:
            self.lost_at = now  # another worker will start it
            return WorkerEvent(cause="restarting")
        if now - self.lost_at >= LOST_SECONDS:
            raise PlainError(
                f"The worker of this run ({self.worker}) was lost, and no other connected within "
                f"{duration(LOST_SECONDS)}; start a worker and run it again."
            )
        return WorkerEvent(cause="lost")

    @property
    def on_worker(self) -> bool:
        return bool(self.worker) and self.lost_at is None

    def _silence(self, beat: float, now: float) -> float:
        """Seconds since the scheduler heard from the worker, by this machine's clock."""
        known, since = self.beats.get(self.worker, (None, now))
        if known != beat:
            since = now
        self.beats[self.worker] = (beat, since)
        return now - since
