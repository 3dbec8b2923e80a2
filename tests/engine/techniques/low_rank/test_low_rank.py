"""Low rank: the nearest matrices, whitened or not, how ranks are shared out, and chains that run as
such.
"""

from itertools import product

import numpy as np
import pytest
import tensorly
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
    UnpackingConv2d,
    UnpackingEmbedding,
    UnpackingLinear,
    keep_unpacked,
)
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.techniques.implementations import compress, diagnostics, plan, storage_plan
from engine.techniques.low_rank.correction.config import LowRankCorrection
from engine.techniques.low_rank.ranks import (
    LayerEnergy,
    allocated_ranks,
    allocated_ranks_by_energy,
    mean_energy,
    rank_of_energy,
    rank_of_share,
)
from engine.techniques.low_rank.svd.config import SVD
from engine.techniques.low_rank.tensor_decomposition.config import CP, Tucker
from engine.techniques.low_rank.tensor_decomposition.method import (
    cp_factors,
    full_cp_rank,
    tucker_factors,
)
from engine.techniques.low_rank.whitening import whitening
from engine.techniques.quantization.awq.method import output_error
from engine.tensors.low_rank import (
    CorrectedWeight,
    CPKernel,
    LowRankWeight,
    TuckerKernel,
    UnfactoredWeight,
    break_even_rank,
    saves_parameters,
)
from engine.tensors.weights import weight_from_settings
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.steps import CONVOLUTIONAL
from tests.tiny import ARCHITECTURES, tiny

CPU = torch.device("cpu")
each_architecture = for_each("architecture", ARCHITECTURES)
WHITENED = ("asvd", "svd-llm", "fisher")
CONVOLUTION = Layer("conv", "conv2d", (20, 12, 3, 3), 4, "")


def weight_of(out: int = 24, in_: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, in_, generator=torch.Generator().manual_seed(seed))


def seen_of(width: int = 40, count: int = 200, seed: int = 1) -> InputStats:
    """Inputs that go together, of channels with strengths of their own."""
    draw = torch.Generator().manual_seed(seed)
    mixed = 0.3 * torch.randn(count, width, generator=draw) + torch.randn(
        count, 8, generator=draw
    ) @ torch.randn(8, width, generator=draw)
    seen = InputStats(width, CPU)
    seen.add(mixed * torch.randn(width, generator=draw).exp())
    return seen


def data_for(config: SVD | LowRankCorrection, weight: torch.Tensor) -> tuple:
    if config.needs == "nothing":
        return ()
    slopes = GradientStats(
        weight_of(*weight.shape, seed=2), weight_of(*weight.shape, seed=3).square()
    )
    return (slopes,) if config.needs == "gradients" else (seen_of(weight.shape[1]),)


def reconstruction(config: SVD, weight: torch.Tensor) -> torch.Tensor:
    return compress(config, weight, *data_for(config, weight)).to_dense()


def planned_config(config: Tucker | CP, layer: Layer = CONVOLUTION) -> Tucker | CP:
    return plan(config, [layer])[layer.name]


# --- the nearest matrix ---------------------------------------------------------------------------


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
    whole = output_error(weight, seen)
    assert (
        output_error(white - weight, seen)
        <= output_error(plain - weight, seen) * (1 + 1e-3) + 1e-5 * whole
    )


def test_the_whitened_singular_values_left_out_are_what_the_output_loses():
    weight, seen = weight_of(), seen_of()
    config = SVD(by="rank", rank=10, damping=1e-6)
    left_out = torch.linalg.svdvals(whitening(config, seen).whiten(weight))[10:].square().sum()
    lost = compress(config, weight, seen).to_dense() - weight
    assert ((lost @ (seen.gram / seen.count)) * lost).sum() == pytest.approx(
        left_out.item(), rel=1e-2
    )


def test_asvd_scales_columns_by_the_mean_input_and_alpha_0_is_plain():
    weight, seen = weight_of(), seen_of()
    scales = seen.abs_mean.sqrt()
    expected = reconstruction(SVD(by="rank", rank=7, whitening="none"), weight * scales) / scales
    torch.testing.assert_close(
        compress(SVD(by="rank", rank=7, whitening="asvd"), weight, seen).to_dense(),
        expected,
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


def test_too_few_inputs_are_damped_and_it_is_said():
    seen = seen_of(count=9)
    weight = weight_of()
    assert compress(SVD(), weight, seen).to_dense().isfinite().all()
    assert "9 input vectors cannot span 40 inputs" in seen.warnings[0]


def test_inputs_and_rows_that_nobody_heard_of_do_no_harm():
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
    smallest = (reconstruction(SVD(by="rank", rank=20, whitening="none"), weight) - weight).norm()
    assert (
        smallest <= errors[4] * (1 + 1e-5)
        and errors[4] <= errors[1] <= errors[0]
        and errors[4] < 1.001 * smallest < errors[0]
    )


def test_the_randomized_solver_gives_the_same_each_time_and_leaves_other_draws_alone():
    weight, config = weight_of(), SVD(by="rank", rank=3, whitening="none", solver="randomized")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = reconstruction(config, weight)
    assert torch.equal(torch.rand(3), expected) and torch.equal(reconstruction(config, weight), one)


# --- ranks ----------------------------------------------------------------------------------------


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


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 0.999))
def test_factors_have_at_most_the_share_of_parameters_that_is_to_be_kept(out, in_, kept):
    rank = rank_of_share((out, in_), kept)
    assert rank * (out + in_) <= kept * out * in_ + 1e-6 or rank == 1
    assert (rank + 1) * (out + in_) > kept * out * in_ - 1e-6 or rank == min(out, in_)


def test_energy_takes_the_fewest_directions():
    values = torch.tensor([3.0, 2.0, 1.0, 1.0])
    assert [rank_of_energy(values, share) for share in (0.1, 9 / 15, 0.61, 13 / 15, 0.99, 1.0)] == [
        1,
        1,
        2,
        2,
        4,
        4,
    ]


def test_a_layer_whose_factors_would_be_larger_is_kept_unless_the_rank_was_asked_for():
    weight = weight_of()
    kept = compress(SVD(by="energy", energy=0.99, whitening="none"), weight)
    assert (
        isinstance(kept, UnfactoredWeight)
        and "not below its break-even rank 15.0" in kept.note()
        and torch.equal(kept.to_dense(), weight)
    )
    request = compress(SVD(by="rank", rank=20, whitening="none"), weight)
    assert (
        request.rank == 20
        and "not below the break-even rank 15.0" in request.note()
        and request.factors(torch.float32) == ()
    )
    assert compress(SVD(by="rank", rank=14, whitening="none"), weight).note() == ""


def random_spectrum(out: int, in_: int, decay: float, seed: int = 0) -> LayerEnergy:
    values = torch.rand(
        min(out, in_), generator=torch.Generator().manual_seed(seed)
    ) * torch.arange(1, min(out, in_) + 1).float().pow(-decay)
    return LayerEnergy.of((out, in_), values.sort(descending=True).values)


def best_of_all(layers: dict[str, LayerEnergy], budget: float) -> float:
    """The most energy that any choice of ranks within the budget keeps."""
    options = [
        [
            (layer.cost(rank), layer.gain(rank))
            for rank in (*range(1, layer.max_rank + 1), min(layer.shape))
        ]
        for layer in layers.values()
    ]
    return max(
        (
            sum(gain for _, gain in each)
            for each in product(*options)
            if sum(cost for cost, _ in each) <= budget
        ),
        default=-1,
    )


@given(
    st.lists(
        st.tuples(st.integers(4, 12), st.integers(4, 12), st.floats(0, 2), st.integers(0, 9)),
        min_size=1,
        max_size=3,
    ),
    st.floats(0.05, 1),
)
def test_one_budget_is_met_to_within_one_direction_and_well_spent(shapes, kept):
    layers = {str(i): random_spectrum(*each) for i, each in enumerate(shapes)}
    ranks = allocated_ranks(layers, kept)
    budget, spent = (
        kept * sum(layer.dense_parameters for layer in layers.values()),
        sum(layer.cost(ranks[name]) for name, layer in layers.items()),
    )
    smallest = sum(layer.cost(1) for layer in layers.values())
    assert spent <= max(budget, smallest) + 1e-6
    open_ = [layer.step for name, layer in layers.items() if layer.is_factored_at(ranks[name])]
    assert not open_ or budget - spent < max(open_)
    if budget >= smallest:
        direction = max(
            layer.energy.diff(prepend=torch.zeros(1)).max().item() for layer in layers.values()
        )
        # a layer kept whole is one step
        jump = max((1 - layer.gain(layer.keep_whole_rank) for layer in layers.values()), default=0)
        assert sum(layer.gain(ranks[name]) for name, layer in layers.items()) >= best_of_all(
            layers, budget
        ) - max(direction, jump)


def test_where_spectra_fall_alike_no_layer_is_favoured_and_a_flat_one_gives_way_to_a_steep_one():
    alike = {name: random_spectrum(60, 60, 1.0) for name in "abc"}
    assert len(set(allocated_ranks(alike, 0.3).values()) - {0}) <= 2
    ranks = allocated_ranks(
        {"flat": random_spectrum(60, 60, 0.0), "steep": random_spectrum(60, 60, 3.0)}, 0.9
    )
    assert ranks["steep"] < ranks["flat"]


def test_a_share_of_the_energy_takes_as_little_as_will_do():
    layers = {str(i): random_spectrum(40, 50, decay) for i, decay in enumerate((0.2, 0.8, 1.5))}
    ranks = allocated_ranks_by_energy(layers, 0.8)
    cost = sum(layer.cost(ranks[name]) for name, layer in layers.items())
    assert mean_energy(layers, ranks) >= 0.8
    fewer = allocated_ranks(
        layers, (cost - 2 * 90) / sum(layer.dense_parameters for layer in layers.values())
    )
    assert mean_energy(layers, fewer) < 0.8


# --- tensors --------------------------------------------------------------------------------------


def kernel_like(out: int = 20, in_: int = 12, height: int = 3, width: int = 3) -> torch.Tensor:
    return torch.randn(out, in_ * height * width, generator=torch.Generator().manual_seed(0))


def test_tucker_is_what_tensorly_rebuilds():
    weight = kernel_like()
    stored = compress(planned_config(Tucker(by="rank", rank_out=6, rank_in=5)), weight)
    core, outputs, inputs = tucker_factors(weight.view(20, 12, 3, 3).double().numpy(), (6, 5), 50)
    expected = tensorly.tucker_to_tensor((core, [outputs, inputs, np.eye(3), np.eye(3)]))
    torch.testing.assert_close(
        stored.to_dense(), torch.from_numpy(expected).float().flatten(1), rtol=1e-4, atol=1e-5
    )
    assert stored.ranks == (6, 5)


def test_cp_is_what_tensorly_rebuilds():
    weight = kernel_like()
    stored = compress(planned_config(CP(by="rank", rank=7)), weight)
    factors = cp_factors(weight.view(20, 12, 3, 3).double().numpy(), 7, 100)
    expected = tensorly.cp_to_tensor((np.ones(7), factors))
    torch.testing.assert_close(
        stored.to_dense(), torch.from_numpy(expected).float().flatten(1), rtol=1e-4, atol=1e-5
    )
    sizes = [np.linalg.norm(factor, axis=0) for factor in factors]
    np.testing.assert_allclose(sizes, np.broadcast_to(sizes[0], (4, 7)), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Trying to compute SVD")
def test_pairwise_products_find_the_terms_that_tensorly_finds():
    kernel = np.random.default_rng(0).normal(size=(20, 12, 3, 3))
    weights, factors = tensorly.decomposition.parafac(
        kernel, rank=7, n_iter_max=100, init="svd", tol=1e-7, random_state=0, normalize_factors=True
    )
    result = tensorly.cp_to_tensor((np.ones(7), cp_factors(kernel, 7, 100)))
    np.testing.assert_allclose(
        result, tensorly.cp_to_tensor((weights, factors)), rtol=1e-5, atol=1e-7
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
        smallest = out + in_ + (area[0] * area[1] if isinstance(config, Tucker) else sum(area))
        assert (
            isinstance(planned, UnfactoredWeight)
            or planned.nparameters <= max(kept * layer.parameters, smallest) + 1e-6
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
    expected = F.conv2d(
        inputs, stored.to_dense().view(20, 12, *kernel), module.bias, **chained.config
    )
    assert len(chained.weight_factors()) == {Tucker: 3, CP: 4, SVD: 2}[type(config)]
    torch.testing.assert_close(chained(inputs), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(supported_kernel(chained)(inputs), expected, rtol=1e-4, atol=1e-5)


def test_factors_below_break_even_run_one_after_the_other_and_others_as_one(monkeypatch):
    layer, products = nn.Linear(40, 24), []
    run_as = F.linear
    monkeypatch.setattr(
        "engine.models.packed_modules.F.linear",
        lambda x, w, b=None: products.append(tuple(w.shape)) or run_as(x, w, b),
    )
    inputs = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    for rank, expected in ((14, [(14, 40), (24, 14)]), (15, [(24, 40)])):
        products.clear()
        stored = compress(SVD(by="rank", rank=rank, whitening="none"), layer.weight.detach())
        module = UnpackingLinear(stored, layer, torch.float32)
        torch.testing.assert_close(
            module(inputs), run_as(inputs, stored.to_dense(), layer.bias), rtol=1e-4, atol=1e-5
        )
        assert products == expected
        with keep_unpacked(module):
            module(inputs)
        assert products == expected * 2 and module.chain is None and module.unpacked is None


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


# --- stored ---------------------------------------------------------------------------------------


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
def test_the_forecast_is_what_is_stored(config):
    layer = Layer("a", "linear", (24, 40), 2, "", "bfloat16")
    mine = plan(config, [layer])["a"]
    assert storage_plan(mine, (24, 40)).nbytes == compress(mine, weight_of()).nbytes
    assert storage_plan(mine, (24, 40)).settings() == compress(mine, weight_of()).settings()


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
    mine = planned_config(config)
    assert storage_plan(mine, (20, 108)).settings() == compress(mine, kernel_like()).settings()
    assert storage_plan(mine, (20, 108)).nbytes == compress(mine, kernel_like()).nbytes


# --- correction -----------------------------------------------------------------------------------


def test_a_correction_is_the_nearest_matrix_to_what_rounding_lost():
    weight, config = (
        weight_of(48, 64),
        LowRankCorrection(whitening="none", rank=6, order="quantize-first"),
    )
    stored = compress(config, weight)
    lost = weight - compress(config.rounding(), weight).to_dense()
    assert isinstance(stored, CorrectedWeight) and (
        weight - stored.to_dense()
    ).norm() == pytest.approx(torch.linalg.svdvals(lost)[6:].norm().item(), rel=1e-4)


def test_with_data_a_correction_loses_less_of_the_output():
    weight, seen = weight_of(48, 64), seen_of(64, 400)
    plain, white = (
        compress(LowRankCorrection(whitening=each), weight, seen).to_dense()
        for each in ("none", "svd-llm")
    )
    rounded = compress(LowRankCorrection().rounding(), weight).to_dense()
    losses = [output_error(each - weight, seen) for each in (white, plain, rounded)]
    assert losses[0] < 0.8 * losses[1] < losses[1] < losses[2]


@pytest.mark.parametrize("order", ["quantize-first", "low-rank-first"])
def test_each_correction_lowers_what_its_rounding_left(order):
    weight = weight_of(48, 64)
    for turns in (1, 3, 10):
        stored = compress(LowRankCorrection(whitening="none", order=order, turns=turns), weight)
        assert (weight - stored.to_dense()).norm() < (weight - stored.base.to_dense()).norm()


def test_more_bits_and_more_directions_lose_less():
    weight = weight_of(48, 64)
    errors = [
        (
            compress(LowRankCorrection(whitening="none", bits=bits, rank=rank), weight).to_dense()
            - weight
        ).norm()
        for bits, rank in ((2, 4), (2, 16), (4, 16))
    ]
    assert errors == sorted(errors, reverse=True)


# --- portraits ------------------------------------------------------------------------------------


@for_each("white", ("none", *WHITENED))
@for_each("config", [SVD(kept=0.5), SVD(kept=0.5, solver="randomized"), LowRankCorrection(rank=3)])
def test_a_portrait_has_the_rank_and_the_spectrum_with_its_cut(config, white):
    config, weight = config.model_copy(update={"whitening": white}), weight_of(200, 300)
    data = data_for(config, weight)
    stored = compress(config, weight, *data)
    rows = diagnostics(config, "layer", weight, stored, *(data or (None,)))
    (rank,) = rows.ranks
    expected = stored.rank if isinstance(stored, LowRankWeight) else stored.correction.rank
    assert (
        rank.rank == expected
        and rank.full_rank == 200
        and rank.break_even == pytest.approx(break_even_rank((200, 300)))
        and not rank.whole
    )
    for table in rows.singular:
        assert (
            table[table.kept]["index"].max() == expected
            and table.cumulative_energy.between(0, 1.001).all()
        )
        assert table.singular_value.is_monotonic_decreasing and len(table) <= 130
    used = rows.singular[-1 if config.technique != "svd" or config.solver == "exact" else -2]
    assert rank.kept_energy == pytest.approx(
        used[used["index"] == expected].cumulative_energy.iloc[0], abs=2e-3
    )


@pytest.mark.parametrize("config", [Tucker(), CP(), Tucker(kept=1)])
def test_a_portrait_of_a_convolution_has_its_ranks(config):
    stored = compress(planned_config(config), kernel_like())
    (row,) = diagnostics(planned_config(config), "conv", kernel_like(), stored, None).ranks
    assert (
        row.whole == isinstance(stored, UnfactoredWeight)
        and 0 < row.kept_energy <= 1
        and 0 < row.kept_parameters <= 1
    )


# --- runs -----------------------------------------------------------------------------------------


@for_each("step", CONVOLUTIONAL)
def test_chains_are_saved_loaded_and_measure_as_the_run_said(step, tmp_path):
    model = tiny("resnet", tmp_path / "model")
    recipe = recipe_for("resnet", model, tmp_path / "data", CONVOLUTIONAL[step])
    outcome = run(recipe, save=tmp_path / "saved")
    again = run(
        recipe.model_copy(update={"model": str(tmp_path / "saved"), "steps": ()})
    ).summary.result
    summary = outcome.summary.result
    assert (
        again.loss == summary.loss
        and again.size_bytes == summary.size_bytes
        and summary.compression > 1
    )
    assert summary.size_bytes == sum(
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


# --- bad input ------------------------------------------------------------------------------------


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


def test_ranks_wider_than_every_convolution_are_refused():
    with pytest.raises(
        PlainError, match="has 20 outputs and 12 inputs, so ranks 21 and 3 are too large"
    ):
        plan(Tucker(by="rank", rank_out=21, rank_in=3), [CONVOLUTION])
    with pytest.raises(
        PlainError, match="^Rank 109 is above the full rank of every convolution, 108 at most"
    ):
        plan(CP(by="rank", rank=109), [CONVOLUTION])


@for_each(
    ("step", "words"),
    [
        ({"technique": "svd", "rank": 0}, "rank: 0 is not allowed"),
        ({"technique": "svd", "kept": 0}, "kept: 0 is not allowed"),
        ({"technique": "svd", "energy": 1.1}, "energy: 1.1 is not allowed"),
        (
            {"technique": "svd", "whitening": "pca"},
            "'pca' is not allowed; give none, asvd, svd-llm or fisher",
        ),
        ({"technique": "cp", "by": "energy"}, "'energy' is not allowed; give kept or rank"),
        ({"technique": "low-rank-correction", "rank": 0}, "rank: 0 is not allowed"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [step]})
    assert "\n" not in str(refused.value)


def test_labels_say_what_was_asked():
    assert (
        SVD().label() == "SVD 80% kept of all layers, whitened"
        and SVD(scope="layer", whitening="none").label() == "SVD 80% kept"
    )
    assert (
        SVD(by="rank", rank=8, whitening="asvd", solver="randomized").label()
        == "SVD rank 8, ASVD, randomized"
    )
    assert Tucker().label() == "Tucker-2 50% kept" and CP(by="rank").label() == "CP rank 32"
    assert (
        LowRankCorrection(whitening="none", turns=5).label()
        == "Rounding 3-bit + rank 8, low rank first, 5 iterations"
    )
    assert saves_parameters((24, 40), 14) and not saves_parameters((24, 40), 15)
