import pytest

from engine.techniques.implementations import compress, diagnostics
from tests.cases import for_each
from tests.pruning import EVERY, given_to, weight_of


@for_each("method", EVERY)
def test_diagnostics_count_every_weight(method):
    weight = weight_of(50, 90)
    asked = given_to(method(sparsity=0.3), weight)
    stored = compress(*asked)
    rows = diagnostics(asked[0], "layer", weight, stored, *(asked[2:] or [None]))
    left, gone = sum(row.stays for row in rows.importance), sum(row.goes for row in rows.importance)
    assert left == int(stored.to_dense().count_nonzero()) and left + gone == weight.numel()
    (tiles,) = rows.masks
    assert len(tiles) == 25 * 30 and tiles.left.mean() == pytest.approx(
        left / weight.numel(), abs=1e-6
    )
    assert [row.way for row in rows.storage if row.chosen] == [stored.kind]
