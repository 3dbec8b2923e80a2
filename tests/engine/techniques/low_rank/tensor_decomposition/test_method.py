"""Tucker and CP decompositions equal tensorly's, and run as chains of convolutions."""

import numpy as np
import pytest
import tensorly
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from engine.errors import PlainError
from engine.kernels import supported_kernel
from engine.models.layers import Layer
from engine.models.packed_modules import (
    UnpackingConv2d,
)
from engine.pipeline.run import run
from engine.techniques.implementations import compress, diagnostics, plan, storage_plan
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.tensor_decomposition.config import CP, Tucker
from engine.techniques.low_rank.tensor_decomposition.method import (
    cp_factors,
    full_cp_rank,
    tucker_factors,
)
from engine.tensors.low_rank import (
    CPKernel,
    TuckerKernel,
    UnfactoredWeight,
)
from engine.tensors.weights import weight_from_settings
from tests.cases import for_each
from tests.low_rank import weight_of
from tests.recipes import recipe_for
from tests.steps import CONVOLUTIONAL
from tests.tiny import tiny

CONVOLUTION = Layer("conv", "conv2d", (20, 12, 3, 3), 4, "")


def planned_config(config: Tucker | CP, layer: Layer = CONVOLUTION) -> Tucker | CP:
    return plan(config, [layer])[layer.name]


# --- tensors --------------------------------------------------------------------------------------


def kernel_like(out: int = 20, in_: int = 12, height: int = 3, width: int = 3) -> torch.Tensor:
    return torch.randn(out, in_ * height * width, generator=torch.Generator().manual_seed(0))


def test_tucker_is_what_tensorly_rebuilds():
    weight = kernel_like()
    stored = compress(planned_config(Tucker(by="rank", rank_out=6, rank_in=5)), weight)
    core, outputs, inputs = tucker_factors(weight.view(20, 12, 3, 3).double().numpy(), (6, 5), 50)
    due = tensorly.tucker_to_tensor((core, [outputs, inputs, np.eye(3), np.eye(3)]))
    torch.testing.assert_close(
        stored.to_dense(), torch.from_numpy(due).float().flatten(1), rtol=1e-4, atol=1e-5
    )
    assert stored.ranks == (6, 5)


def test_cp_is_what_tensorly_rebuilds():
    weight = kernel_like()
    stored = compress(planned_config(CP(by="rank", rank=7)), weight)
    factors = cp_factors(weight.view(20, 12, 3, 3).double().numpy(), 7, 100)
    due = tensorly.cp_to_tensor((np.ones(7), factors))
    torch.testing.assert_close(
        stored.to_dense(), torch.from_numpy(due).float().flatten(1), rtol=1e-4, atol=1e-5
    )
    sizes = [np.linalg.norm(each, axis=0) for each in factors]
    np.testing.assert_allclose(sizes, np.broadcast_to(sizes[0], (4, 7)), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Trying to compute SVD")
def test_pairwise_products_find_the_terms_that_tensorly_finds():
    kernel = np.random.default_rng(0).normal(size=(20, 12, 3, 3))
    weights, factors = tensorly.decomposition.parafac(
        kernel, rank=7, n_iter_max=100, init="svd", tol=1e-7, random_state=0, normalize_factors=True
    )
    ours = tensorly.cp_to_tensor((np.ones(7), cp_factors(kernel, 7, 100)))
    np.testing.assert_allclose(
        ours, tensorly.cp_to_tensor((weights, factors)), rtol=1e-5, atol=1e-7
    )


def test_a_kernel_of_few_terms_is_found_again():
    draw = np.random.default_rng(0)
    axes = [draw.normal(size=(size, 3)) for size in (20, 12, 3, 3)]
    kernel = tensorly.cp_to_tensor((np.ones(3), axes))
    weight = torch.from_numpy(kernel).float().flatten(1)
    assert (
        compress(planned_config(CP(by="rank", rank=3, iterations=500)), weight).to_dense() - weight
    ).norm() < 1e-2 * weight.norm()
    assert (
        compress(planned_config(Tucker(by="rank", rank_out=3, rank_in=3)), weight).to_dense()
        - weight
    ).norm() < 1e-4 * weight.norm()


@for_each(
    "config",
    [
        Tucker(by="rank", rank_out=20, rank_in=12),
        Tucker(kept=1),
        Tucker(by="energy", energy=1),
        CP(kept=1),
        CP(by="rank", rank=108),
    ],
)
def test_full_ranks_of_a_convolution_change_nothing(config):
    weight = kernel_like()
    stored = compress(planned_config(config), weight)
    assert (
        isinstance(stored, UnfactoredWeight)
        and torch.equal(stored.to_dense(), weight)
        and stored.note()
    )


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([(3, 3), (7, 7), (1, 5)]),
    st.floats(0.05, 0.99),
)
def test_a_chain_has_at_most_the_share_of_parameters_that_is_to_be_kept(out, in_, area, kept):
    layer = Layer("conv", "conv2d", (out, in_, *area), 4, "")
    for config in (Tucker(kept=kept), CP(kept=kept)):
        planned = storage_plan(planned_config(config, layer), layer.matrix_shape)
        # of one direction or term
        least = out + in_ + (area[0] * area[1] if isinstance(config, Tucker) else sum(area))
        assert (
            isinstance(planned, UnfactoredWeight)
            or planned.nparameters <= max(kept * layer.parameters, least) + 1e-6
        )


def test_more_terms_than_any_kernel_needs():
    assert full_cp_rank(20, (12, 3, 3)) == 12 * 9 and full_cp_rank(2, (3, 5, 5)) == 2 * 3 * 5


@for_each(
    "layer",
    [
        Layer("head", "linear", (10, 20), 4, ""),
        Layer("one", "conv2d", (20, 12, 1, 1), 4, ""),
        Layer("deep", "conv2d", (20, 1, 3, 3), 4, "", groups=20),
    ],
)
@for_each("config", [Tucker(), CP()])
def test_what_is_no_convolution_for_it_is_kept_with_the_reason(config, layer):
    weight = weight_of(*layer.matrix_shape)
    stored = compress(plan(config, [CONVOLUTION, layer])[layer.name], weight)
    assert isinstance(stored, UnfactoredWeight) and torch.equal(stored.to_dense(), weight)
    assert "not changed" in stored.note() or "is unchanged" in stored.note()
    with pytest.raises(PlainError, match="there is none among these layers; use SVD instead"):
        plan(config, [layer])


# --- how they run ---------------------------------------------------------------------------------

SETTINGS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"padding": "same"},
    {"padding": "valid", "dilation": 2},
]


@for_each("settings", SETTINGS, ids=str)
@for_each("config", [Tucker(), CP(), SVD(whitening="none", kept=0.5)])
@for_each("kernel", [(3, 3), (5, 3), (1, 7)])
def test_a_convolution_runs_as_a_chain_with_the_outputs_of_its_kernel_and_keeps_its_bias(
    kernel, config, settings
):
    module = nn.Conv2d(12, 20, kernel, **settings)
    layer = Layer("conv", "conv2d", (20, 12, *kernel), 4, "")
    stored = compress(plan(config, [layer])["conv"], module.weight.detach().flatten(1))
    inputs = torch.randn(2, 12, 15, 17, generator=torch.Generator().manual_seed(1))
    chained = UnpackingConv2d(stored, module, torch.float32)
    due = F.conv2d(inputs, stored.to_dense().view(20, 12, *kernel), module.bias, **chained.config)
    assert len(chained.weight_factors()) == {Tucker: 3, CP: 4, SVD: 2}[type(config)]
    torch.testing.assert_close(chained(inputs), due, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(supported_kernel(chained)(inputs), due, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [TuckerKernel, CPKernel])
def test_a_chain_comes_back_from_the_file(kind):
    stored = compress(planned_config(Tucker() if kind is TuckerKernel else CP()), kernel_like())
    again = weight_from_settings(stored.settings(), stored.tensors())
    assert (
        isinstance(again, kind)
        and torch.equal(again.to_dense(), stored.to_dense())
        and again.nbytes == sum(again.byte_breakdown().values())
    )


@for_each(
    "config",
    [
        Tucker(),
        Tucker(by="rank", rank_out=5, rank_in=20),
        Tucker(kept=1),
        CP(),
        CP(by="rank", rank=108),
    ],
)
def test_the_forecast_of_a_convolution_is_what_is_stored(config):
    if isinstance(config, Tucker) and config.rank_in == 20:
        config = config.model_copy(update={"rank_in": 12})
    planned = planned_config(config)
    assert (
        storage_plan(planned, (20, 108)).settings() == compress(planned, kernel_like()).settings()
    )
    assert storage_plan(planned, (20, 108)).nbytes == compress(planned, kernel_like()).nbytes


@pytest.mark.parametrize("config", [Tucker(), CP(), Tucker(kept=1)])
def test_diagnostics_of_a_convolution_have_its_ranks(config):
    stored = compress(planned_config(config), kernel_like())
    (row,) = diagnostics(planned_config(config), "conv", kernel_like(), stored, None).ranks
    assert (
        row.whole == isinstance(stored, UnfactoredWeight)
        and 0 < row.kept_energy <= 1
        and 0 < row.kept_parameters <= 1
    )


@for_each("step", CONVOLUTIONAL)
def test_chains_are_saved_and_have_the_scores_of_their_run(step, tmp_path):
    model = tiny("resnet", tmp_path / "model")
    recipe = recipe_for("resnet", model, tmp_path / "data", CONVOLUTIONAL[step])
    outcome = run(recipe, save=tmp_path / "saved")
    again = run(
        recipe.model_copy(update={"model": str(tmp_path / "saved"), "steps": ()})
    ).summary.result
    said = outcome.summary.result
    assert again.loss == said.loss and again.size_bytes == said.size_bytes and said.compression > 1
    assert said.size_bytes == sum(
        file.stat().st_size for file in (tmp_path / "saved").glob("*.safetensors")
    )
    kept = outcome.tables.layers[outcome.tables.layers.relative_error == 0]
    assert (kept.note != "").all() and len(outcome.tables.ranks) == (
        outcome.tables.layers.technique != ""
    ).sum()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert"])
def test_tucker_and_cp_refuse_a_model_without_convolutions(architecture, tmp_path):
    model = tiny(architecture, tmp_path / "model")
    for technique, title in (("tucker", "Tucker-2"), ("cp", "CP")):
        with pytest.raises(PlainError, match=f"^{title} is for convolutions") as refused:
            run(recipe_for(architecture, model, tmp_path / "data", {"technique": technique}))
        assert "\n" not in str(refused.value)


def test_ranks_wider_than_every_convolution_are_refused():
    with pytest.raises(
        PlainError, match="has 20 outputs and 12 inputs, so ranks 21 and 3 are too large"
    ):
        plan(Tucker(by="rank", rank_out=21, rank_in=3), [CONVOLUTION])
    with pytest.raises(
        PlainError, match="^Rank 109 is above the full rank of every convolution, 108 at most"
    ):
        plan(CP(by="rank", rank=109), [CONVOLUTION])
