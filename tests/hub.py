"""A Hugging Face Hub on the loopback interface that serves local folders, with switches for what
goes wrong.

with serving({"someone/llama": folder}) as hub:
    hub.gated.add("someone/llama")
    environment = hub.environment(tmp_path)     # for a subprocess: HF_ENDPOINT is read when
    huggingface_hub is imported
    hub.point_here(monkeypatch, tmp_path)       # for this process
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

API = re.compile(
    r"/api/models/(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?"
)
RESOLVE = re.compile(r"/(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """Files that are served and refused; may be changed while it runs."""

    models: dict[str, Path]
    url: str = ""
    # anyone may see that they are there, nobody may fetch them
    gated: set[str] = field(default_factory=set)
    failing: bool = False  # every answer is a 500
    fetched: list[str] = field(default_factory=list)  # paths of files sent

    def commit(self, model: str) -> str:
        """40 hex digits that change with the folder's files."""
        files = sorted(p for p in self.models[model].iterdir() if p.is_file())
        return hashlib.sha1(
            "".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files).encode()
        ).hexdigest()

    def environment(self, home: Path) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def point_here(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            self.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[Hub]:
    hub = Hub(models)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (Answer,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Answer(BaseHTTPRequestHandler):
    """The few calls that huggingface_hub makes to fetch a snapshot."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = API.fullmatch(path) or RESOLVE.fullmatch(path)
        if self.hub.failing:
            return self.refuse(500, "")
        if asked is None or asked["id"] not in self.hub.models:
            return self.refuse(404, "RepoNotFound")
        if (asked["revision"] or "main") not in ("main", self.hub.commit(asked["id"])):
            return self.refuse(404, "RevisionNotFound")
        return self.about(asked) if asked.re is API else self.file(asked)

    do_HEAD = do_GET

    def about(self, asked: re.Match[str]) -> None:
        files = sorted(p for p in self.hub.models[asked["id"]].iterdir() if p.is_file())
        tree = [
            {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": blob_id(p)}
            for p in files
        ]
        info = {
            "id": asked["id"],
            "sha": self.hub.commit(asked["id"]),
            "siblings": [{"rfilename": p.name} for p in files],
        }
        self.send(
            json.dumps(tree if asked["what"] == "tree" else info).encode(),
            {"Content-Type": "application/json"},
        )

    def file(self, asked: re.Match[str]) -> None:
        path = self.hub.models[asked["id"]] / asked["file"]
        if asked["id"] in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        if not path.is_file():
            return self.refuse(404, "EntryNotFound")
        if self.command == "GET":
            self.hub.fetched.append(asked["file"])
        self.send(
            path.read_bytes(),
            {"ETag": f'"{blob_id(path)}"', "X-Repo-Commit": self.hub.commit(asked["id"])},
        )

    def send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.send(b"{}", {"X-Error-Code": code} if code else {}, status)

    def log_message(self, *args) -> None:
        pass


def blob_id(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
