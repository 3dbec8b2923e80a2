"""Ranks under a budget, before a run: what a run then does, and answered while a slider moves."""

import pytest
import torch

from engine.errors import PlainError
from engine.interactive import answers, rank_planner
from engine.interactive.model_cache import CACHE
from engine.pipeline.run import run
from tests.answers import planned_ranks, singular
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

SVD = {"technique": "svd", "kept": 0.5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny(name, tmp_path_factory.mktemp(name)) for name in ("llama", "resnet")}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    # threads that wait for one another are slow on a busy machine
    monkeypatch.setattr(answers, "setup_worker", lambda: torch.set_num_threads(1))
    yield
    CACHE.clear()


def recipe_and_data(architecture, folders, tmp_path, step):
    recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", step)
    return recipe, recipe.model_dump(mode="json", include={"task", "calibration", "layers"})


@for_each(
    "step",
    [
        SVD | {"whitening": "none"},
        SVD | {"whitening": "none", "scope": "global"},
        SVD | {"whitening": "asvd", "scope": "global"},
        {"technique": "svd", "whitening": "none", "by": "energy"},
        {"technique": "svd", "whitening": "none", "by": "rank", "rank": 20},
        {"technique": "svd", "whitening": "fisher", "by": "energy", "scope": "global"},
        SVD | {"scope": "global"},
    ],
)
@for_each("architecture", ["llama", "resnet"])
def test_the_plan_is_what_a_run_does(architecture, step, folders, tmp_path):
    recipe, measured = recipe_and_data(architecture, folders, tmp_path, step)
    plan = planned_ranks(str(folders[architecture]), step, measured)
    tables = run(recipe).tables
    ranks, layers = tables.ranks.set_index("layer"), tables.layers.set_index("name")
    for row in plan.ranks.itertuples():
        assert (row.rank, row.whole) == (ranks["rank"][row.layer], ranks.whole[row.layer])
        assert (
            row.size_bytes == layers.size_bytes[row.layer]
            and row.original_bytes == layers.original_bytes[row.layer]
        )
        if step.get("whitening") == "none":
            assert row.predicted_error == pytest.approx(
                layers.relative_error[row.layer], rel=1e-3, abs=1e-5
            )


def test_the_spectra_are_computed_once_for_all_budgets(folders, tmp_path, monkeypatch):
    _, measured = recipe_and_data("llama", folders, tmp_path, SVD)
    first = planned_ranks(str(folders["llama"]), SVD, measured)
    monkeypatch.setattr(rank_planner, "layer_energies", lambda *_: pytest.fail("computed again"))
    less = planned_ranks(str(folders["llama"]), SVD | {"kept": 0.2, "scope": "global"}, measured)
    assert (
        less.kept_parameters < first.kept_parameters
        and less.ranks.predicted_error.mean() > first.ranks.predicted_error.mean()
    )


def test_one_budget_for_all_loses_less_than_the_same_share_of_each(folders, tmp_path):
    _, measured = recipe_and_data("llama", folders, tmp_path, SVD)
    each, together = (
        planned_ranks(str(folders["llama"]), SVD | {"scope": scope}, measured)
        for scope in ("layer", "global")
    )
    assert together.ranks.predicted_error.pow(2).mean() < each.ranks.predicted_error.pow(2).mean()
    assert together.kept_parameters <= 0.5 * together.parameters


def test_what_is_too_large_or_no_svd_is_refused_in_a_sentence(folders, tmp_path, monkeypatch):
    _, measured = recipe_and_data("llama", folders, tmp_path, SVD)
    monkeypatch.setattr(rank_planner, "MAX_PRODUCTS", 10)
    with pytest.raises(PlainError, match="take minutes, too long for a live answer"):
        planned_ranks(str(folders["llama"]), SVD, measured)
    with pytest.raises(PlainError, match="has no ranks to allocate; choose SVD"):
        planned_ranks(str(folders["llama"]), {"technique": "low-rank-correction"}, measured)


def test_singular_values_of_a_layer_have_a_cut_and_those_of_a_chain_are_none(folders, tmp_path):
    _, measured = recipe_and_data("resnet", folders, tmp_path, SVD)
    layer, measured = (
        "resnet.encoder.stages.1.layers.0.layer.1.convolution",
        {key: measured[key] for key in ("task", "calibration")},
    )
    table = singular(str(folders["resnet"]), layer, SVD, measured)
    assert set(table.version) == {"plain", "whitened"} and table.kept.any() and not table.kept.all()
    assert singular(str(folders["resnet"]), layer, {"technique": "tucker"}, measured).empty
