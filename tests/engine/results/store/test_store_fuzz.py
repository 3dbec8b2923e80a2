"""Every run in a damaged store is listed, readable or explained, and can be deleted.

`tests/benchmarks/fuzz_store.py` is the long form.
"""

import random

from engine.errors import PlainError
from engine.results.analysis.runs import (
    comparison,
    latest_similar_run,
    layers_side_by_side,
    trade_off,
    why_not_comparable,
)
from engine.results.store.run_query import RunQuery
from engine.results.store.store import Store
from tests.cases import for_each
from tests.runs import record
from tests.store_damage import damage, fill_store

ORDERS = ("newest", "oldest", "smallest", "compression", "quality", "model", "setting")


def read_everything(store: Store) -> None:
    """Read everything that pages read from a store; only single runs may raise PlainError."""
    there = {path.name for path in store.folders.iterdir() if not path.name.startswith(".")}
    records = store.records()
    assert {run.id for run in records} == there
    for order in ORDERS:
        page = store.page(RunQuery(order=order, limit=-1))
        assert {row.id for row in page.rows} == there and page.matching == page.total == len(
            there
        ), order
    good = []
    for run in records:
        one = store.record(run.id)
        assert one.message or one.status != "unreadable"
        store.find(run.key)
        try:
            comparison([one]), trade_off([one])
            layers_side_by_side({"one": store.tables(run.id)})
            good.append(one)
        except PlainError as error:
            assert str(error).endswith(".")
    why_not_comparable(good), comparison(good), trade_off(good)
    latest_similar_run(store.similar_runs(record(1).recipe), record(1).recipe)


@for_each("seed", range(8))
def test_a_damaged_store_lists_every_run_and_lets_it_be_deleted(tmp_path, seed):
    draw, store = random.Random(seed), Store(tmp_path / "results")
    fill_store(store, 2)
    for _ in range(5):
        damage(store, draw)
        read_everything(store)
    for run in [run.id for run in store.records()]:
        store.delete(run)
    assert store.records() == [] and store.page(RunQuery()).total == 0
