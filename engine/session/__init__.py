"""The background session: submit a recipe, follow it, cancel it, ask a quick question.

Nothing here imports torch, and nothing here computes: workers do, in processes of their own.
"""

import atexit
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from time import time
from typing import Literal
from uuid import uuid4

from engine.errors import Cancelled, PlainError
from engine.events import Message
from engine.quantities import duration
from engine.queries import Answer, Query
from engine.recipe import Recipe
from engine.recipe.model_names import ModelName
from engine.results.schema.outcome import Outcome
from engine.results.schema.record import ACTIVE, RunRecord, Status
from engine.results.store import unfinished
from engine.results.store.process_lease import current_owner
from engine.results.store.store import Store
from engine.runtime import settings
from engine.runtime.local_paths import check_sources, path_limit
from engine.runtime.settings import home
from engine.session.cluster_connection import ClusterConnection
from engine.session.progress import Progress
from engine.session.questions import Questions
from engine.session.run_queue import RunQueue
from engine.session.visitors import LATE, check_owner, check_quota, may_change

__all__ = ["Progress", "Session"]


@dataclass
class ActiveRun:
    """A run of this session that is not over. Its state only moves forward, under the session's
    lock.
    """

    record: RunRecord
    state: Literal["waiting", "begun", "ending"] = "waiting"
    progress: Progress = field(default_factory=Progress)
    out_of_time: bool = False  # stopped by the time limit of a shared server


GRACE_SECONDS = 60  # for a run beyond the time limit to stop by itself, as after a cancellation


class Session:
    """Runs and questions of a whole server: every browser session shares it, from any thread.

    Runs are listed and read in its ``store``.
    """

    def __init__(self, store: Store | None = None):
        self.store = store or Store(home())
        with suppress(PlainError):  # an unreadable store is reported where runs are listed
            self.store.mark_interrupted()
        self._live: dict[str, ActiveRun] = {}
        self._lock = threading.Lock()
        self._link = ClusterConnection()
        self._questions = Questions(self._link.cluster)
        atexit.register(self.close)

    # --- runs -------------------------------------------------------------------------------------

    def submit(self, recipe: Recipe, visitor: str = "") -> RunRecord:
        """Queue a run, or return the one with an equal answer that is done or on its way.

        ``visitor`` submits it on a shared server. Raises PlainError if the model name is invalid or
        there is no cluster;
        on a shared server also for a local path outside its folder or a quota that is used up.
        """
        check_sources(recipe.model_dump(mode="json"), path_limit())
        ModelName.parse(recipe.model)
        key = recipe.key()
        record = RunRecord(
            id=uuid4().hex[:8], key=key, recipe=recipe, owner=current_owner(), visitor=visitor
        )
        return self.store.find(key) or self._enqueue(record)

    def progress(self, run: str) -> Progress:
        live = self._live.get(run)
        return live.progress if live else Progress.outside(self.store.record(run).status)

    def may_change(self, record: RunRecord, visitor: str = "") -> bool:
        """Return True if the visitor may cancel or delete the run; always if the server is not
        shared.
        """
        return may_change(record, visitor, settings.sharing())

    def cancel(self, run: str, visitor: str = "") -> None:
        """Stop a run between two layers, or take it out of the queue. A finished one is left alone.

        Raises PlainError for a run of another program, and on a shared server for one of another
        visitor.
        """
        check_owner(self.store.record(run), visitor, settings.sharing())
        if self._change_state(run, "ending", {"waiting"}):
            self._record_end(
                run, "cancelled", "The run was canceled while it waited. Run it again at any time."
            )
        elif run in self._live:
            self._link.cluster().cancel(run)
        elif self.store.record(run).status in ACTIVE:
            raise PlainError(
                "This run belongs to another program, which uses the same results folder; "
                "cancel it there."
            )

    def delete(self, run: str, visitor: str = "") -> None:
        """Delete a finished run and its unfinished work.

        Raises PlainError while it is queued or running, and on a shared server for a run of another
        visitor.
        """
        record = self.store.record(run)
        check_owner(record, visitor, settings.sharing())
        if record.status in ACTIVE:
            raise PlainError("This run is still active; cancel it first, then delete it.")
        self.store.delete(run)
        if not self.store.find(record.key):
            unfinished.remove_unfinished(record.key)

    def has_finished_blocks(self, record: RunRecord) -> bool:
        """Return True if finished blocks of an incomplete run are kept, from which its recipe
        resumes.
        """
        return unfinished.finished_block_count(record.key) > 0

    # --- questions --------------------------------------------------------------------------------

    def ask(self, query: Query[Answer], timeout: float = 60, visitor: object = None) -> Answer:
        """Return a worker's answer to a question.

        A newer question of the same visitor drops a waiting one. Raises PlainError, also if the
        worker exceeds ``timeout`` seconds or the memory limit of questions; the worker is then
        replaced.
        """
        return self._questions.ask(query, timeout, visitor)

    def close(self) -> None:
        """Disconnect from the cluster. Active runs are marked interrupted."""
        atexit.unregister(self.close)
        self._questions.close()
        for run in list(self._live):
            if self._change_state(run, "ending", {"waiting", "begun"}):
                self._record_end(
                    run,
                    "interrupted",
                    "The app was closed before this run was done; run its recipe again.",
                )
        self._link.close()

    # --- inside -----------------------------------------------------------------------------------

    @cached_property
    def _turns(self) -> RunQueue[str]:
        return RunQueue(self._link.cluster().run_slots(), self._execute)

    def _enqueue(self, record: RunRecord) -> RunRecord:
        turns = self._started_queue()
        with self._lock:  # the same recipe may be submitted twice at the same moment
            if known := self.store.find(record.key):
                return known
            check_quota(
                [live.record for live in self._live.values()], record.visitor, settings.sharing()
            )
            self.store.save(record)
            self._live[record.id] = ActiveRun(record)
        turns.queue(record.id)
        return record

    def _started_queue(self) -> RunQueue[str]:
        self._link.cluster()  # raises where there is none, also later on
        with self._lock:
            return self._turns

    def _execute(self, run: str) -> None:
        """Carry out one run from start to end, in its queue's thread, and record any failure."""
        if not self._change_state(run, "begun", {"waiting"}):
            return  # cancelled meanwhile
        record = self._live[run].record
        self.store.save(record.model_copy(update={"status": "running"}))
        clock = self._clock(run)
        try:
            keep = str(self.store.model_folder(run))
            outcome = self._link.cluster().run(
                record.recipe.model_dump(mode="json"),
                run,
                keep,
                lambda message: self._update_progress(run, message),
            )
        except Cancelled as stop:
            self._end_run(run, *self._why_ended(run, "cancelled", str(stop)))
        except PlainError as error:
            self._end_run(run, *self._why_ended(run, "failed", str(error)))
        except Exception as error:  # the thread must live on
            self._end_run(
                run,
                "failed",
                f"The run was lost ({type(error).__name__}: {str(error)[:200]}); run it again.",
            )
        else:
            self._end_run(run, "done", outcome=outcome)
        finally:
            for timer in clock:
                timer.cancel()

    def _clock(self, run: str) -> list[threading.Timer]:
        """Timers that end a run beyond a shared server's time limit: first like a cancellation,
        then by force.
        """
        if not (sharing := settings.sharing()):
            return []
        timers = [
            threading.Timer(sharing.seconds, self._out_of_time, (run,)),
            threading.Timer(
                sharing.seconds + GRACE_SECONDS, lambda: self._link.cluster().stop(run)
            ),
        ]
        for timer in timers:
            timer.daemon = True
            timer.start()
        return timers

    def _out_of_time(self, run: str) -> None:
        if live := self._live.get(run):
            live.out_of_time = True
            self._link.cluster().cancel(run)

    def _why_ended(self, run: str, status: Status, message: str) -> tuple[Status, str]:
        """Status and message of an ended run, or that it exceeded the time limit."""
        live, sharing = self._live.get(run), settings.sharing()
        if live and live.out_of_time and sharing:
            return "failed", LATE.format(time=duration(sharing.seconds))
        return status, message

    def _update_progress(self, run: str, message: Message) -> None:
        if live := self._live.get(run):
            # the worker's clock may be another machine's
            live.progress = live.progress.after(replace(message, time=time()))

    def _change_state(self, run: str, to: Literal["begun", "ending"], allowed: set[str]) -> bool:
        """Change a run's status. Return False if another caller already did."""
        with self._lock:
            live = self._live.get(run)
            if live is None or live.state not in allowed:
                return False
            live.state = to
            return True

    def _end_run(
        self, run: str, status: Status, message: str = "", outcome: Outcome | None = None
    ) -> None:
        if self._change_state(run, "ending", {"begun"}):
            self._record_end(run, status, message, outcome)

    def _record_end(
        self, run: str, status: Status, message: str = "", outcome: Outcome | None = None
    ) -> None:
        """Record the end of a run, for the caller that changed its status."""
        self._live[run].progress = Progress.outside(status)
        news = {
            "status": status,
            "message": message,
            "finished": datetime.now(UTC),
            "summary": outcome.summary if outcome else None,
        }
        record = self._live[run].record.model_copy(update=news)
        try:
            self.store.save(record, outcome.tables if outcome else None)
        except Exception as error:
            lost = (
                f"The run was done, but its result could not be kept ({type(error).__name__}: "
                f"{str(error)[:200]}); please report this recipe."
            )
            self.store.save(
                record.model_copy(update={"status": "failed", "message": lost, "summary": None})
            )
        finally:
            self._live.pop(run, None)
