"""Factors are the nearest matrices of their rank, whitened or not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats
from engine.errors import PlainError
from engine.kernels import NoKernelError, supported_kernel
from engine.models.layers import Layer
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.models.packed_modules import (
    UnpackingEmbedding,
    UnpackingLinear,
    keep_unpacked,
)
from engine.pipeline.run import run
from engine.techniques.implementations import compress, plan, storage_plan
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.quantization.awq.method import summed_output_error
from engine.tensors.low_rank import (
    LowRankWeight,
    UnfactoredWeight,
)
from engine.tensors.weights import weight_from_settings
from tests.answers import forecast
from tests.cases import for_each
from tests.low_rank import WHITENED, data_for, reconstruction, seen_of, weight_of
from tests.recipes import recipe_for
from tests.tiny import ARCHITECTURES, tiny

CPU = torch.device("cpu")
each_architecture = for_each("architecture", ARCHITECTURES)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 99), st.data())
def test_no_matrix_of_the_rank_is_nearer_than_svds(out, in_, seed, data):
    """Eckart and Young; the error is that of the singular values left out."""
    rank = data.draw(st.integers(1, min(out, in_) - 1))
    weight = weight_of(out, in_, seed)
    lost = (reconstruction(SVD(by="rank", rank=rank, whitening="none"), weight) - weight).norm()
    assert lost == pytest.approx(
        torch.linalg.svdvals(weight)[rank:].norm().item(), rel=1e-4, abs=1e-5
    )
    other = weight_of(out, rank, seed + 1) @ weight_of(rank, in_, seed + 2)
    best = (other * weight).sum() / other.square().sum() * other  # as near as its multiples come
    assert lost <= (best - weight).norm() + 1e-5


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 60), st.integers(0, 99), st.data())
def test_whitened_svd_never_loses_more_of_the_output_than_plain_svd(out, in_, count, seed, data):
    """Also where there are too few inputs to span the space."""
    rank = data.draw(st.integers(1, min(out, in_)))
    weight, seen = weight_of(out, in_, seed), seen_of(in_, count, seed + 1)
    plain, white = (
        compress(SVD(by="rank", rank=rank, whitening=each), weight, seen).to_dense()
        for each in ("none", "svd-llm")
    )
    whole = summed_output_error(weight, seen)
    assert (
        summed_output_error(white - weight, seen)
        <= summed_output_error(plain - weight, seen) * (1 + 1e-3) + 1e-5 * whole
    )


def test_asvd_scales_columns_by_the_mean_input_and_alpha_0_is_plain():
    weight, seen = weight_of(), seen_of()
    scales = seen.abs_mean.sqrt()
    due = reconstruction(SVD(by="rank", rank=7, whitening="none"), weight * scales) / scales
    torch.testing.assert_close(
        compress(SVD(by="rank", rank=7, whitening="asvd"), weight, seen).to_dense(),
        due,
        rtol=1e-3,
        atol=1e-4,
    )
    plain = reconstruction(SVD(by="rank", rank=7, whitening="none"), weight)
    torch.testing.assert_close(
        compress(SVD(by="rank", rank=7, whitening="asvd", alpha=0), weight, seen).to_dense(),
        plain,
        rtol=1e-3,
        atol=1e-4,
    )


def test_fisher_spares_the_rows_that_the_loss_feels():
    weight, square = weight_of(), torch.ones(24, 40)
    square[5] = 1e6
    lost = (
        compress(
            SVD(by="rank", rank=5, whitening="fisher"), weight, GradientStats(square, square)
        ).to_dense()
        - weight
    )
    assert lost[5].norm() < 1e-2 * lost.norm(dim=1).mean()


def test_too_few_inputs_are_damped_with_a_note():
    seen = seen_of(count=9)
    weight = weight_of()
    assert compress(SVD(), weight, seen).to_dense().isfinite().all()
    assert "9 input vectors cannot span 40 inputs" in seen.warnings[0]


def test_unused_inputs_and_zero_rows_are_handled():
    weight, inputs = weight_of(), torch.randn(100, 40, generator=torch.Generator().manual_seed(6))
    inputs[:, 3] = 0
    seen = InputStats(40, CPU)
    seen.add(inputs)
    for white in ("asvd", "svd-llm"):
        assert compress(SVD(whitening=white), weight, seen).to_dense().isfinite().all()
    assert (
        compress(SVD(whitening="fisher"), weight, GradientStats(weight, torch.zeros(24, 40)))
        .to_dense()
        .isfinite()
        .all()
    )


@for_each("white", ("none", *WHITENED))
def test_a_layer_of_zeros_stays_one(white):
    assert not reconstruction(SVD(whitening=white), torch.zeros(24, 40)).any()


def test_the_randomized_solver_comes_near_the_exact_one_and_nearer_with_more_iterations():
    weight = weight_of(120, 200) @ torch.diag(torch.arange(1, 201).float().pow(-0.7))
    errors = {
        n: (
            reconstruction(
                SVD(by="rank", rank=20, whitening="none", solver="randomized", iterations=n), weight
            )
            - weight
        ).norm()
        for n in (0, 1, 4)
    }
    least = (reconstruction(SVD(by="rank", rank=20, whitening="none"), weight) - weight).norm()
    assert (
        least <= errors[4] * (1 + 1e-5)
        and errors[4] <= errors[1] <= errors[0]
        and errors[4] < 1.001 * least < errors[0]
    )


def test_the_randomized_solver_gives_the_same_each_time_and_leaves_other_draws_alone():
    weight, config = weight_of(), SVD(by="rank", rank=3, whitening="none", solver="randomized")
    torch.manual_seed(5)
    due = torch.rand(3)
    torch.manual_seed(5)
    one = reconstruction(config, weight)
    assert torch.equal(torch.rand(3), due) and torch.equal(reconstruction(config, weight), one)


@for_each("white", ("none", *WHITENED))
@for_each(
    "step", [{"by": "rank", "rank": 24}, {"by": "kept", "kept": 1}, {"by": "energy", "energy": 1}]
)
def test_full_rank_changes_nothing(step, white):
    weight, config = weight_of().bfloat16().float(), SVD(whitening=white, **step)
    stored = compress(
        plan(config, [Layer("a", "linear", (24, 40), 2, "", "bfloat16")])["a"],
        weight,
        *data_for(config, weight),
    )
    assert (
        isinstance(stored, UnfactoredWeight)
        and torch.equal(stored.to_dense(), weight)
        and stored.weight.dtype == torch.bfloat16
    )
    assert "full rank" in stored.note()


def test_a_layer_whose_factors_would_be_larger_is_kept_unless_the_rank_was_asked_for():
    weight = weight_of()
    kept = compress(SVD(by="energy", energy=0.99, whitening="none"), weight)
    assert (
        isinstance(kept, UnfactoredWeight)
        and "not below its break-even rank 15.0" in kept.note()
        and torch.equal(kept.to_dense(), weight)
    )
    asked = compress(SVD(by="rank", rank=20, whitening="none"), weight)
    assert (
        asked.rank == 20
        and "not below the break-even rank 15.0" in asked.note()
        and asked.factors(torch.float32) == ()
    )
    assert compress(SVD(by="rank", rank=14, whitening="none"), weight).note() == ""


def test_factors_below_break_even_run_one_after_the_other_and_others_as_one(monkeypatch):
    layer, products = nn.Linear(40, 24), []
    run_as = F.linear
    monkeypatch.setattr(
        "engine.models.packed_modules.F.linear",
        lambda x, w, b=None: products.append(tuple(w.shape)) or run_as(x, w, b),
    )
    inputs = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    for rank, due in ((14, [(14, 40), (24, 14)]), (15, [(24, 40)])):
        products.clear()
        stored = compress(SVD(by="rank", rank=rank, whitening="none"), layer.weight.detach())
        module = UnpackingLinear(stored, layer, torch.float32)
        torch.testing.assert_close(
            module(inputs), run_as(inputs, stored.to_dense(), layer.bias), rtol=1e-4, atol=1e-5
        )
        assert products == due
        with keep_unpacked(module):
            module(inputs)
        assert products == due * 2 and module.chain is None and module.unpacked is None


def test_an_embedding_looks_up_its_left_factor_alone():
    table = nn.Embedding(300, 40)
    stored = compress(SVD(by="rank", rank=5, whitening="none"), table.weight.detach())
    ids = torch.tensor([[1, 299], [7, 7]])
    torch.testing.assert_close(
        UnpackingEmbedding(stored, table, torch.float32)(ids),
        stored.to_dense()[ids],
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_layer_without_a_gain_has_no_kernel_and_says_why():
    layer = nn.Linear(40, 24)
    for config, why in (
        (SVD(by="rank", rank=20, whitening="none"), "take more than its weight"),
        (SVD(kept=1, whitening="none"), "is unchanged"),
    ):
        with pytest.raises(NoKernelError, match=why):
            supported_kernel(
                UnpackingLinear(compress(config, layer.weight.detach()), layer, torch.float32)
            )


def test_factors_may_be_quantized_themselves_and_come_back_from_the_file():
    low = compress(SVD(by="rank", rank=10, whitening="none"), weight_of())
    rounding = LowRankCorrection(group_size=8).rounding()
    nested = LowRankWeight(
        low.shape, compress(rounding, low.left.to_dense()), compress(rounding, low.right.to_dense())
    )
    again = weight_from_settings(nested.settings(), nested.tensors())
    assert (
        torch.equal(again.to_dense(), nested.to_dense())
        and sum(again.byte_breakdown().values()) == nested.nbytes < low.nbytes
    )
    assert set(low.byte_breakdown()) == {"factors"} and set(nested.byte_breakdown()) == {
        "codes",
        "scales",
    }


@for_each(
    "config",
    [
        SVD(whitening="none", scope="layer"),
        SVD(whitening="none", kept=0.01, scope="layer"),
        SVD(whitening="none", kept=1),
        SVD(whitening="none", by="rank", rank=3),
        SVD(whitening="none", by="rank", rank=20),
        SVD(whitening="none", by="rank", rank=24),
        SVD(whitening="none", factors="float16", scope="layer"),
        LowRankCorrection(whitening="none"),
        LowRankCorrection(whitening="none", group_size=0, rank=24, factors="bfloat16"),
    ],
)
def test_the_forecast_has_the_stored_bytes(config):
    layer = Layer("a", "linear", (24, 40), 2, "", "bfloat16")
    planned = plan(config, [layer])["a"]
    assert storage_plan(planned, (24, 40)).nbytes == compress(planned, weight_of()).nbytes
    assert storage_plan(planned, (24, 40)).settings() == compress(planned, weight_of()).settings()


@each_architecture
def test_a_run_at_full_rank_measures_the_original_again(architecture, tmp_path):
    model = tiny(architecture, tmp_path / "model")
    outcome = run(
        recipe_for(
            architecture,
            model,
            tmp_path / "data",
            {"technique": "svd", "whitening": "none", "kept": 1},
        )
    )
    assert outcome.summary.result.loss == outcome.summary.baseline.loss
    treated = outcome.tables.layers[outcome.tables.layers.technique != ""]
    assert (
        (treated.relative_error == 0).all()
        and treated.note.str.contains("full rank").all()
        and outcome.tables.ranks.whole.all()
    )


def test_one_budget_for_all_layers_keeps_that_share_of_their_parameters(tmp_path):
    model = tiny("llama", tmp_path / "model")
    for white in ("none", "svd-llm"):
        step = {"technique": "svd", "whitening": white, "scope": "global", "kept": 0.5}
        tables = run(recipe_for("llama", model, tmp_path / "data", step)).tables
        parameters = tables.layers.set_index("name").parameters[tables.ranks.layer]
        kept = (
            tables.ranks.kept_parameters.to_numpy() * parameters.to_numpy()
        ).sum() / parameters.sum()
        assert 0.48 < kept <= 0.5


def test_an_embedding_is_factorized_where_it_is_asked_for_and_no_data_is_needed(tmp_path):
    model = tiny("llama", tmp_path / "model")
    step = {"technique": "svd", "whitening": "none", "kept": 0.5}
    outcome = run(
        recipe_for("llama", model, tmp_path / "data", step, layers={"include": ["*embed_tokens"]}),
        save=tmp_path / "saved",
    )
    stored = (
        load_model(resolve_model(str(tmp_path / "saved")), CPU, torch.float32)
        .model.get_submodule("model.embed_tokens")
        .stored
    )
    assert (
        isinstance(stored, LowRankWeight)
        and outcome.tables.layers.set_index("name").technique["model.embed_tokens"] == "svd"
    )


@for_each(
    "step",
    [
        {"scope": "layer"},
        {"scope": "global", "kept": 0.3},
        {"scope": "global"},
        {"by": "energy", "energy": 0.5},
        {"by": "rank", "rank": 4},
        {"scope": "layer", "kept": 0.02},
    ],
)
@for_each("architecture", ["llama", "resnet"])
def test_the_forecast_is_the_size_or_says_that_it_is_at_most_that(architecture, step, tmp_path):
    recipe = recipe_for(
        architecture,
        tiny(architecture, tmp_path / "model"),
        tmp_path / "data",
        {"technique": "svd", "whitening": "none", **step},
    )
    ahead, size = forecast(recipe), run(recipe).summary.result.size_bytes
    assert ahead.size_bytes >= size if ahead.at_most else ahead.size_bytes == size
    assert (
        ahead.at_most == (step.get("scope") == "global" or step.get("by") == "energy")
        and not ahead.at_least
    )


def test_a_rank_above_every_layers_full_rank_is_refused_and_above_one_layers_it_is_kept():
    layers = [Layer("small", "linear", (8, 40), 4, ""), Layer("large", "linear", (24, 40), 4, "")]
    for config in (SVD(by="rank", rank=25), LowRankCorrection(rank=25)):
        with pytest.raises(
            PlainError,
            match=(
                r"^Rank 25 is above the full rank of every layer, 24 at most \(large\), so "
                r"nothing would change; give"
            ),
        ):
            plan(config, layers)
    assert isinstance(
        compress(
            plan(SVD(by="rank", rank=16, whitening="none"), layers)["small"], weight_of(8, 40)
        ),
        UnfactoredWeight,
    )
