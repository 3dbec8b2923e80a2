"""Models of the Hub, served by a local one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.errors import PlainError
from engine.models.loading import (
    load_pretrained,
    resolve_model,
    tokenizer_of,
)
from tests.hub import Hub, serving
from tests.model_folders import error_message, logits
from tests.tiny import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[3]


# The Hub


@pytest.fixture
def hub(library, tmp_path, monkeypatch):
    """A Hub with every tiny model, and an empty cache."""
    with serving({f"tiny/{name}": library / name for name in ARCHITECTURES}) as served:
        served.point_here(monkeypatch, tmp_path / "cache")
        yield served


def test_a_model_from_the_hub_is_the_same_model(hub: Hub, library):
    here, there, heard = resolve_model(str(library / "llama")), None, []
    there = resolve_model("tiny/llama", heard.append)
    assert there.revision == hub.commit("tiny/llama") and torch.equal(
        logits(load_pretrained(here), here), logits(load_pretrained(there), there)
    )
    assert tokenizer_of(there).get_vocab() == tokenizer_of(here).get_vocab()
    assert heard and {event.model for event in heard} == {"tiny/llama"}
    assert all(0 < event.done <= event.total for event in heard)


def test_a_model_is_fetched_once(hub: Hub):
    first = resolve_model("tiny/bert")
    fetched = list(hub.fetched)
    assert (
        resolve_model("tiny/bert").files
        == resolve_model(f"tiny/bert@{first.revision}").files
        == first.files
    )
    assert hub.fetched == fetched


def test_pickles_and_code_are_never_fetched(hub: Hub, llama):
    for name in ("pytorch_model.bin", "modeling.py", "consolidated.safetensors"):
        (llama / name).write_bytes(b"x")
    hub.models["tiny/own"] = llama
    resolve_model("tiny/own")
    assert not {"pytorch_model.bin", "modeling.py", "consolidated.safetensors"} & set(hub.fetched)


def test_a_model_with_nothing_but_pickles_is_refused(hub: Hub, llama):
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    hub.models["tiny/own"] = llama
    assert "the only weight format that is read" in error_message(resolve_model, "tiny/own")


def test_a_gated_model_is_refused_with_the_way_in(hub: Hub):
    hub.gated.add("tiny/llama")
    assert "'tiny/llama' is gated: accept its conditions" in error_message(
        resolve_model, "tiny/llama"
    )


def test_an_unknown_model_is_refused(hub: Hub):
    assert "shows no model 'tiny/nothing'" in error_message(resolve_model, "tiny/nothing")


def test_an_unknown_revision_is_refused(hub: Hub):
    assert "'tiny/llama' has no revision 'v9'" in error_message(resolve_model, "tiny/llama@v9")


@pytest.mark.parametrize("text", ["./llama", "a--b", "tiny/.git"])
def test_what_cannot_be_a_hub_id_is_refused(hub: Hub, text):
    assert "neither a directory nor a Hub id" in error_message(resolve_model, text)


def test_a_failing_hub_and_an_unreachable_one_have_different_messages(hub: Hub, monkeypatch):
    hub.failing = True
    assert "the Hub failed (status 500)" in error_message(resolve_model, "tiny/llama")
    hub.url = "http://127.0.0.1:9"  # the discard port: nobody listens
    hub.point_here(monkeypatch, Path("/nonexistent"))
    assert "the Hub cannot be reached" in error_message(resolve_model, "tiny/llama")


def test_the_cache_serves_when_the_hub_is_away_and_an_incomplete_one_is_refused(hub: Hub):
    first = resolve_model("tiny/llama")
    hub.failing = True
    assert resolve_model("tiny/llama").files == first.files
    first.files[0].unlink()
    assert "only partly in the cache" in error_message(resolve_model, "tiny/llama")


def test_a_report_that_stops_the_run_stops_the_download(hub: Hub):
    def stop(text: str) -> None:
        raise PlainError("Stopped.")

    assert error_message(resolve_model, "tiny/llama", stop) == "Stopped."


def test_the_environment_decides_endpoint_cache_and_offline(hub: Hub, tmp_path):
    script = "import sys; from engine.models.model_source import *\nfor model in sys.argv[1:]:\n"
    script += "    try: print(resolve_model(model).path)\n    except PlainError as e: print(e)"

    def answers(*models: str, **more: str) -> list[str]:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), **more}
        command = [sys.executable, "-c", script, *models]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    (fetched,) = answers("tiny/llama")
    cached, refusal = answers("tiny/llama", "tiny/opt", HF_HUB_OFFLINE="1")
    assert fetched.startswith(str(tmp_path / "home")) and cached == fetched
    assert "HF_HUB_OFFLINE forbids" in refusal
