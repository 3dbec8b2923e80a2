"""Scheduler and worker of the embedded cluster, without distributed's web servers.

These would serve logs, tasks and metrics unencrypted to everyone who can reach the machine.
"""

from typing import Any

from distributed import Scheduler, Worker

HEARTBEAT_SECONDS = 10  # heartbeats only carry what a dashboard shows


class NoWebServer:
    def start_http_server(self, routes: Any, *arguments: Any, **options: Any) -> None:
        """Do nothing."""


class PrivateScheduler(NoWebServer, Scheduler):
    def heartbeat_worker(self, **news: Any) -> dict[str, Any]:
        return super().heartbeat_worker(**news) | {"heartbeat-interval": HEARTBEAT_SECONDS}


class PrivateWorker(NoWebServer, Worker):
    pass
