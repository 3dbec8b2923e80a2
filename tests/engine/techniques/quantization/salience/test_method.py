import pytest

from engine.pipeline.run import run
from engine.techniques.quantization.salience.method import VARIANTS
from tests.recipes import recipe_for
from tests.tiny import tiny


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("llama"))


def test_one_run_gives_the_whole_table(llama, tmp_path):
    outcome = run(
        recipe_for(
            "llama",
            llama,
            tmp_path / "data",
            {"technique": "awq-salience", "group_size": 32, "bits": 2},
        )
    )
    table = outcome.tables.salience
    assert len(table) == len(VARIANTS) == 15 and table.chosen.sum() == 1
    plain, neutral = (
        table[(table.kept_by == "") & (table.share == 0)],
        table[(table.kept_by == "") & (table.scale == 1) & (table.share > 0)],
    )
    assert plain.loss.item() == pytest.approx(neutral.loss.item(), abs=1e-6)
    best = table[table.chosen].iloc[0]
    assert best.kept_by == "" and outcome.summary.result.loss == pytest.approx(best.loss, abs=1e-6)
    kept = table[(table.kept_by == "activations")].sort_values("share")
    assert (
        kept.output_error.is_monotonic_decreasing and kept.bits_per_weight.is_monotonic_increasing
    )
    others = table[(table.share == 0.03)].set_index("kept_by").output_error
    assert others["activations"] < others["random"] < plain.output_error.item()
