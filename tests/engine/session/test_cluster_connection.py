"""When the background processes are started: after the first page, unless somebody needs them
before.
"""

import threading

import pytest

from engine.errors import PlainError
from engine.session import cluster_connection as link
from engine.session.cluster_connection import ClusterConnection

PATIENCE = 60


class Standing:
    """A cluster that is there, and nothing more."""

    alive, closed = True, False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def started_clusters(monkeypatch) -> list[Standing]:
    """Every cluster that was started."""
    clusters: list[Standing] = []
    monkeypatch.setattr(
        link, "import_and_connect", lambda: clusters.append(Standing()) or clusters[-1]
    )
    return clusters


def test_a_caller_starts_the_cluster_without_delay(started_clusters):
    waiting = ClusterConnection(page_first=PATIENCE)
    assert started_clusters == []
    assert (
        waiting.cluster() is waiting.cluster() is started_clusters[0] and len(started_clusters) == 1
    )


def test_the_cluster_starts_by_itself_after_a_delay(monkeypatch):
    started = threading.Event()
    monkeypatch.setattr(link, "import_and_connect", lambda: started.set() or Standing())
    ClusterConnection(page_first=0.01)
    assert started.wait(PATIENCE)


def test_an_app_that_closes_before_the_start_starts_nothing(started_clusters):
    waiting = ClusterConnection(page_first=PATIENCE)
    waiting.close()
    assert started_clusters == []
    with pytest.raises(PlainError, match="The app is closing"):
        waiting.cluster()


def test_a_started_cluster_is_closed_and_a_lost_one_is_replaced(started_clusters):
    waiting = ClusterConnection(page_first=PATIENCE)
    first = waiting.cluster()
    first.alive = False
    second = waiting.cluster()
    assert second is not first and started_clusters == [first, second]
    waiting.close()
    assert second.closed


def test_a_failed_start_is_tried_once_more(monkeypatch):
    from engine.session import cluster

    asked = []

    def client(address, **_):
        asked.append(address)
        assert len(asked) > 1
        return "a client"

    monkeypatch.setattr(cluster, "Client", client)
    assert cluster.client_of("tcp://here") == "a client" and asked == ["tcp://here"] * 2
