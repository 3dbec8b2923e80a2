"""Memory limits of the workers of the built-in cluster."""

import pytest

from engine.errors import PlainError
from engine.queries import ModelQuery, WorkerQuery
from engine.results.store.store import Store
from engine.session import Session
from tests.cases import for_each
from tests.extra_queries import MemoryQuery
from tests.waiting import PATIENCE_SECONDS, wait_until_finished


def test_only_the_question_that_exceeds_its_memory_is_stopped_with_the_reason(
    tmp_path, monkeypatch, home
):
    """Torch's own ones, 8 GB of them, stand for whatever takes so much."""
    monkeypatch.setenv("COMPRESSION_EXPLORER_QUESTION_MEMORY", "1.5GB")
    session = Session(Store(tmp_path / "results"))
    try:
        workers = {session.ask(WorkerQuery(), PATIENCE_SECONDS).pid}
        with pytest.raises(
            PlainError,
            match=r"The question needed more than the 1\.5 GB of memory.*QUESTION_MEMORY.*smaller",
        ):
            session.ask(MemoryQuery(2_000_000_000), PATIENCE_SECONDS)
        assert session.ask(ModelQuery(str(home / "model")), PATIENCE_SECONDS).parameters > 0
        assert session.ask(WorkerQuery(), PATIENCE_SECONDS).pid not in workers
    finally:
        session.close()


def test_a_run_that_exceeds_its_memory_fails_with_a_message_and_the_app_continues(
    tmp_path, recipe, monkeypatch
):
    # PyTorch and Transformers alone take more
    monkeypatch.setenv("COMPRESSION_EXPLORER_MEMORY", "250MB")
    session = Session(Store(tmp_path / "results"))
    try:
        failed = wait_until_finished(session, session.submit(recipe()).id)
        assert (
            failed.status == "failed"
            and "more memory than a worker may use" in failed.message
            and "smaller model" in failed.message
        )
        assert session.ask(WorkerQuery(), PATIENCE_SECONDS).pid
    finally:
        session.close()


AMOUNTS = [
    ("", "a lot", "not an amount of memory"),
    ("", "-1GB", "too little"),
    ("", "20MB", "too little"),
    ("QUESTION_", "500MB", "too little"),
]


@for_each("worker, amount, wrong", AMOUNTS)
def test_an_invalid_amount_of_memory_gives_a_message(
    tmp_path, recipe, monkeypatch, worker, amount, wrong
):
    monkeypatch.setenv(f"COMPRESSION_EXPLORER_{worker}MEMORY", amount)
    session = Session(Store(tmp_path / "results"))
    try:
        for _ in range(2):
            with pytest.raises(
                PlainError, match=f"COMPRESSION_EXPLORER_{worker}MEMORY is '{amount}'.*{wrong}"
            ):
                session.submit(recipe())
        assert session.store.records() == []
    finally:
        session.close()
