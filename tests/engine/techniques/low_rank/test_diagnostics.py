import pytest

from engine.techniques.implementations import compress, diagnostics
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.svd.config import SVD
from engine.tensors.low_rank import (
    LowRankWeight,
    break_even_rank,
)
from tests.cases import for_each
from tests.low_rank import WHITENED, data_for, weight_of


@for_each("white", ("none", *WHITENED))
@for_each("config", [SVD(kept=0.5), SVD(kept=0.5, solver="randomized"), LowRankCorrection(rank=3)])
def test_diagnostics_have_the_rank_and_the_spectrum_with_its_cut(config, white):
    config, weight = config.model_copy(update={"whitening": white}), weight_of(200, 300)
    data = data_for(config, weight)
    stored = compress(config, weight, *data)
    rows = diagnostics(config, "layer", weight, stored, *(data or (None,)))
    (rank,) = rows.ranks
    due = stored.rank if isinstance(stored, LowRankWeight) else stored.correction.rank
    assert (
        rank.rank == due
        and rank.full_rank == 200
        and rank.break_even == pytest.approx(break_even_rank((200, 300)))
        and not rank.whole
    )
    for table in rows.singular:
        assert (
            table[table.kept]["index"].max() == due
            and table.cumulative_energy.between(0, 1.001).all()
        )
        assert table.singular_value.is_monotonic_decreasing and len(table) <= 130
    used = rows.singular[-1 if config.technique != "svd" or config.solver == "exact" else -2]
    assert rank.kept_energy == pytest.approx(
        used[used["index"] == due].cumulative_energy.iloc[0], abs=2e-3
    )
