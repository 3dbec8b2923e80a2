"""Only the session's own processes can connect to the background processes."""

import asyncio
import os
import socket
import ssl
import stat
import sys
import tempfile
from pathlib import Path

import dask
import psutil
import pytest
from distributed.comm import connect
from distributed.security import Security

from engine.errors import PlainError
from engine.session import external_cluster as named
from engine.session.cluster import Cluster, client_of
from engine.session.credentials import CERTIFICATE, KEY, security, write_credentials
from engine.session.local_cluster import QUESTION_WORKERS, start_local_cluster
from tests.clusters import dask_scheduler, occupied_until
from tests.waiting import wait_for

TLS_ALERT = b"\x15"  # first byte of a refusal
NOBODY = 65534


@pytest.fixture(scope="module")
def embedded():
    cluster = start_local_cluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def client(embedded):
    """Client of the app, after all workers have connected."""
    with client_of(embedded.address, embedded.security) as client:
        wait_for(
            lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 1 + len(QUESTION_WORKERS)
        )
        yield client


def test_spare_workers_start_and_end_on_request(embedded, client):
    def workers():
        return sorted(
            worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()
        )

    def processes():
        return {
            child.pid for child in psutil.Process(embedded.process.pid).children(recursive=True)
        }

    always, before = sorted(["run", *QUESTION_WORKERS]), processes()
    for _ in range(2):  # the name is free again
        embedded.send("start", "ask-3")
        embedded.send("start", "ask-3")
        wait_for(lambda: workers() == sorted([*always, "ask-3"]))
        embedded.send("end", "ask-3")
        embedded.send("end", "ask-3")
        wait_for(lambda: workers() == always and processes() == before)


@pytest.fixture
def foreign(tmp_path):
    """Credentials of another session."""
    write_credentials(tmp_path)
    return security(tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Address of a scheduler without TLS."""
    with dask_scheduler(tmp_path_factory.mktemp("plain")) as address:
        yield address


def greet(address: str, credentials: Security) -> dict:
    """Return what a server sends to a process that connects as Dask does."""

    async def remote() -> dict:
        comm = await connect(address, timeout=5, **credentials.get_connection_args("client"))
        try:
            return comm.remote_info
        finally:
            await comm.close()

    return asyncio.run(remote())


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def talks_to_strangers(port: int) -> bool:
    """Return True if a server sends more than a refusal to a process without its key, with or
    without TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for wrap in (lambda raw: raw, context.wrap_socket):
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=60) as raw,
                wrap(raw) as channel,
            ):
                channel.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if channel.recv(1) not in (b"", TLS_ALERT):
                    return True
        except OSError:  # also every SSLError
            continue
    return False


def processes(embedded):
    host = psutil.Process(embedded.process.pid)
    return [host, *host.children(recursive=True)]


def test_every_port_is_on_the_loopback_and_refuses_strangers(embedded, client):
    client.wait_for_workers(3)
    ports = {
        at.laddr
        for each in processes(embedded)
        for at in each.net_connections("inet")
        if at.status == psutil.CONN_LISTEN
    }
    assert {at.ip for at in ports} == {"127.0.0.1"}
    assert len(ports) == 7, "the scheduler, three nannies and three workers; no web servers"
    assert [at.port for at in ports if talks_to_strangers(at.port)] == []


def test_the_check_detects_an_open_server(plain):
    assert talks_to_strangers(port_of(plain))


def test_a_client_without_the_sessions_certificate_is_refused(embedded, foreign):
    """Without a certificate, with another session's, and without TLS."""
    in_the_clear = embedded.address.replace("tls://", "tcp://")
    for address, credentials in (
        (embedded.address, Security()),
        (embedded.address, foreign),
        (in_the_clear, Security()),
    ):
        with pytest.raises((OSError, TypeError)):  # TypeError: distributed wants a certificate
            greet(address, credentials)
    assert greet(embedded.address, embedded.security)["python"]


def test_with_the_certificate_tasks_run(client):
    assert client.submit(len, "four", resources={"ask-1": 1}).result(60) == 4


def test_only_this_user_can_read_the_key(embedded):
    assert stat.S_IMODE(embedded.scratch.stat().st_mode) == 0o700
    assert {
        stat.S_IMODE((embedded.scratch / name).stat().st_mode) for name in (KEY, CERTIFICATE)
    } == {0o600}
    for each in processes(embedded):  # others can read command lines, but not environments
        assert "PRIVATE KEY" not in " ".join(each.cmdline()) + str(each.environ())


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can become another user"
)
def test_another_user_can_neither_read_the_key_nor_reach_the_scheduler_or_the_workers_process(
    embedded, client
):
    ports = [
        at.laddr.port
        for each in processes(embedded)
        for at in each.net_connections("inet")
        if at.status == psutil.CONN_LISTEN
    ]
    sockets = [
        at.laddr for each in processes(embedded) for at in each.net_connections("unix") if at.laddr
    ]
    said = as_nobody(lambda: attack(embedded.scratch, ports, sockets))
    assert said == "key refused, sockets refused, ports refused"


def attack(scratch: Path, ports: list[int], sockets: list[str]) -> str:
    """Return what another user gets who knows all paths and ports from the process list."""
    outcome = []
    try:
        (scratch / KEY).read_bytes()
        outcome.append("key read")
    except PermissionError:
        outcome.append("key refused")
    reached = []
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as channel:
            if channel.connect_ex(path) == 0:
                reached.append(path)
    outcome.append(f"sockets reached: {reached}" if reached else "sockets refused")
    talking = [port for port in ports if talks_to_strangers(port)]
    outcome.append(f"ports answer: {talking}" if talking else "ports refused")
    return ", ".join(outcome)


def as_nobody(work) -> str:
    """Return value of a function that runs as another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = work()
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def test_a_run_that_does_not_stop_by_itself_is_ended_with_its_worker(embedded, client, tmp_path):
    """Limit of a shared server: question workers are not affected, and the worker for runs
    restarts.
    """
    cluster = Cluster(client, embedded)
    client.wait_for_workers(3)
    before = client.run(os.getpid)
    job = client.submit(
        occupied_until, str(tmp_path / "never"), resources={"run": 1}, key="run-some-run"
    )
    wait_for(lambda: any(client.processing().values()))
    cluster.stop("some-run")
    with pytest.raises(PlainError):
        cluster._result(job, "Try again.")
    assert client.submit(len, "four", resources={"run": 1}, pure=False).result() == 4
    assert len(set(before.values()) & set(client.run(os.getpid).values())) == 2


def test_a_session_leaves_neither_key_nor_folder():
    cluster = start_local_cluster()
    assert (cluster.scratch / KEY).exists() and cluster.scratch.parent == Path(
        tempfile.gettempdir()
    )
    cluster.stop()
    assert not cluster.scratch.exists()


# --- external clusters -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    write_credentials(folder)
    return folder


@pytest.fixture(scope="module")
def secure(tmp_path_factory, certificates):
    """Address of a scheduler with TLS."""
    files = (
        "--tls-ca-file",
        certificates / CERTIFICATE,
        "--tls-cert",
        certificates / CERTIFICATE,
        "--tls-key",
        certificates / KEY,
    )
    with dask_scheduler(tmp_path_factory.mktemp("secure"), "--protocol", "tls", *files) as address:
        assert address.startswith("tls://")
        yield address


@pytest.fixture
def tls_configuration(certificates):
    """Set the variables DASK_DISTRIBUTED__COMM__TLS__..."""
    with dask.config.set(tls_config(certificates)):
        yield


def tls_config(folder):
    client = {"cert": str(folder / CERTIFICATE), "key": str(folder / KEY)}
    return {
        "distributed.comm.tls.ca-file": str(folder / CERTIFICATE),
        **{f"distributed.comm.tls.client.{part}": path for part, path in client.items()},
    }


def test_a_cluster_with_tls_is_used_with_the_certificates_of_dasks_own_settings(
    secure, tls_configuration
):
    with named.client_of(secure) as client:
        assert client.scheduler_info()["address"] == secure


def test_tls_without_certificates_is_one_sentence(secure):
    with pytest.raises(
        PlainError,
        match=(
            r"no certificates are configured; set "
            r"DASK_DISTRIBUTED__COMM__TLS__CA_FILE.*CLIENT__KEY.*\.$"
        ),
    ):
        named.client_of(secure)


def test_an_address_without_tls_of_a_scheduler_with_it_is_one_sentence(secure, monkeypatch):
    monkeypatch.setattr(named, "ANSWER_SECONDS", 2)
    with pytest.raises(
        PlainError, match=r"requires TLS; set DASK_SCHEDULER_ADDRESS to 'tls://127.*CA_FILE"
    ):
        named.client_of(secure.replace("tls://", "tcp://"))


def test_an_address_with_tls_of_a_scheduler_without_it_is_one_sentence(
    plain, tls_configuration, monkeypatch
):
    monkeypatch.setattr(named, "ANSWER_SECONDS", 2)
    with pytest.raises(
        PlainError, match=r"does not use TLS; .*set DASK_SCHEDULER_ADDRESS to 'tcp://127"
    ):
        named.client_of(plain.replace("tcp://", "tls://"))


def test_certificates_of_another_authority_are_one_sentence(secure, tmp_path, monkeypatch):
    monkeypatch.setattr(named, "ANSWER_SECONDS", 2)
    write_credentials(tmp_path)
    with (
        dask.config.set(tls_config(tmp_path)),
        pytest.raises(PlainError, match="signed by the same CA"),
    ):
        named.client_of(secure)


def test_certificates_that_cannot_be_read_are_one_sentence(secure, tmp_path):
    (tmp_path / CERTIFICATE).write_text("no certificate")
    (tmp_path / KEY).write_text("no key")
    for folder in (tmp_path, tmp_path / "missing"):
        with (
            dask.config.set(tls_config(folder)),
            pytest.raises(
                PlainError, match=r"^The certificates for the cluster cannot be read.*\.$"
            ),
        ):
            named.client_of(secure)


def test_a_foreign_server_and_an_unused_port_give_different_messages(monkeypatch):
    monkeypatch.setattr(named, "ANSWER_SECONDS", 1)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert named.transport_at(f"tcp://127.0.0.1:{port}") == "plain"
    assert (
        named.transport_at(f"tcp://127.0.0.1:{port}") == "none"
        and named.transport_at("no address: at all") == "none"
    )
