"""The index of the store while several processes use it."""

from engine.results.store import index
from engine.results.store.store import Store
from tests.runs import record


def test_a_question_is_repeated_if_the_index_changed_while_it_was_synchronized(tmp_path):
    """Otherwise, an older record that was read meanwhile would replace the new one."""
    store = Store(tmp_path)
    store.save(record(1))
    statuses = []

    def question(rows):
        statuses.append(rows.execute("SELECT status FROM runs").fetchone()[0])
        if len(statuses) == 1:
            store.save(record(1, "cancelled"))
        index.remove_runs(rows, {"another"})
        return statuses[-1]

    assert index.query_index(store.index, question) == "cancelled"
    assert statuses == ["queued", "cancelled"]
