"""Pruning: which weights go, and what is left of the rest."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats, accumulate_gradients
from engine.errors import PlainError
from engine.evaluation.calibration_batches import Batch
from engine.models.layers import Layer
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.layer_report import NO_GRADIENT, why_not_seen
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.techniques.implementations import compress, diagnostics, plan, storage_plan
from engine.techniques.pruning.masks import keep_mask, layer_shares
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.sparsegpt.config import SparseGPT
from engine.techniques.pruning.unstructured.config import (
    Magnitude,
    OptimalBrainDamage,
    Random,
    Taylor,
    Wanda,
)
from engine.techniques.pruning.unstructured.scores import comparable_between_layers, importance
from engine.techniques.quantization.awq.method import output_error
from engine.tensors.sparse import CSR, Bitmask, NOfM, sparse_weight, storage_sizes_bytes
from engine.tensors.weights import DenseWeight, weight_from_settings
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")
BY_WEIGHT = (Magnitude, Random)
BY_INPUT = (Wanda, SparseGPT)
BY_GRADIENT = (Taylor, OptimalBrainDamage)
EVERY = BY_WEIGHT + BY_INPUT + BY_GRADIENT


def weight_of(out: int = 24, in_: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, in_, generator=torch.Generator().manual_seed(seed))


def seen_of(width: int = 40, count: int = 200, loud: float = 1.0) -> InputStats:
    """Inputs that go together, of channels with strengths of their own."""
    draw = torch.Generator().manual_seed(1)
    mixed = 0.3 * torch.randn(count, width, generator=draw) + torch.randn(
        count, 8, generator=draw
    ) @ torch.randn(8, width, generator=draw)
    seen = InputStats(width, CPU)
    seen.add(mixed * (loud * torch.randn(width, generator=draw)).exp())
    return seen


def slopes_like(weight: torch.Tensor) -> GradientStats:
    return GradientStats(
        weight_of(*weight.shape, seed=2), weight_of(*weight.shape, seed=3).square()
    )


def given_to(config: Pruning, weight: torch.Tensor) -> tuple:
    if config.needs == "nothing":
        return config, weight
    return (
        config,
        weight,
        slopes_like(weight) if config.needs == "gradients" else seen_of(weight.shape[1]),
    )


def pruned_weight(config: Pruning, weight: torch.Tensor) -> torch.Tensor:
    return compress(*given_to(config, weight)).to_dense()


# --- how many go ----------------------------------------------------------------------------------


@for_each("scope", ["row", "layer"])
@for_each("sparsity", [0.0, 0.25, 0.5, 0.9])
@for_each("method", EVERY)
def test_as_many_go_as_were_asked_for(method, sparsity, scope):
    weight, config = weight_of(), method(sparsity=sparsity, scope=scope)
    zeros = (pruned_weight(config, weight) == 0).sum(1)
    if scope == "row":
        assert (zeros == round(sparsity * 40)).all()
    else:
        assert zeros.sum() == pytest.approx(sparsity * weight.numel(), abs=1)


@for_each(
    ("pattern", "kept", "of"),
    [("2:4", 2, 4), ("4:8", 4, 8), ("1:4", 1, 4), ("3:5", 3, 5), ("20:40", 20, 40)],
)
@for_each("method", EVERY)
def test_a_pattern_keeps_n_of_every_m_neighbours(method, pattern, kept, of):
    left = pruned_weight(method(pattern=pattern), weight_of()) != 0
    assert (left.unflatten(1, (-1, of)).sum(-1) == kept).all()


@for_each("method", EVERY)
def test_zero_sparsity_changes_nothing(method):
    weight = weight_of()
    assert torch.equal(pruned_weight(method(sparsity=0), weight), weight)


@for_each("method", [each for each in EVERY if each is not SparseGPT])
def test_what_stays_stays_as_it_was_and_matters_most(method):
    weight, config = weight_of(), method(sparsity=0.4, scope="layer")
    score, result = importance(*given_to(config, weight)), pruned_weight(config, weight)
    left = result != 0
    assert torch.equal(result[left], weight[left]) and score[left].min() >= score[~left].max()


# --- against torch.nn.utils.prune -----------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
def test_magnitude_in_a_layer_is_torchs_l1(sparsity):
    layer = nn.Linear(40, 24, bias=False)
    expected = prune.l1_unstructured(layer, "weight", sparsity).weight
    assert torch.equal(
        pruned_weight(Magnitude(sparsity=sparsity), layer.weight_orig.detach()), expected
    )


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
def test_magnitude_of_all_layers_is_torchs_global_l1(sparsity):
    layers = {f"layer{i}": nn.Linear(30 + 10 * i, 8 + i, bias=False) for i in range(4)}
    with torch.no_grad():
        layers["layer2"].weight.mul_(0.6)
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()], prune.L1Unstructured, amount=sparsity
    )
    mine = layer_shares(
        lambda name: weights[name].abs(),
        {name: weight.numel() for name, weight in weights.items()},
        sparsity,
    )
    for name, layer in layers.items():
        assert torch.equal(
            keep_mask(weights[name].abs(), Magnitude().model_copy(update={"sparsity": mine[name]})),
            layer.weight_mask.bool(),
        )


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77])
def test_random_is_torchs_given_the_same_draw(sparsity, monkeypatch):
    """torch removes what draws the largest number, ours what draws the smallest."""
    layer, config = nn.Linear(40, 24, bias=False), Random(sparsity=sparsity, draw=3)
    monkeypatch.setattr(torch, "rand_like", lambda weight: 1 - importance(config, weight))
    expected = prune.random_unstructured(layer, "weight", sparsity).weight
    assert torch.equal(pruned_weight(config, layer.weight_orig.detach()), expected)


@pytest.mark.parametrize("config", [Wanda(), SparseGPT()])
def test_among_layers_it_does_not_matter_how_loud_a_layers_inputs_are(config):
    quiet, loud = InputStats(40, CPU), InputStats(40, CPU)
    inputs = torch.randn(200, 40, generator=torch.Generator().manual_seed(7))
    quiet.add(inputs)
    loud.add(1000 * inputs)
    scores = [
        comparable_between_layers(config, importance(config, weight_of(), seen))
        for seen in (quiet, loud)
    ]
    torch.testing.assert_close(*scores)
    assert torch.equal(comparable_between_layers(Magnitude(), weight_of().abs()), weight_of().abs())


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 0.5, 1.0, 1e-20, 3e7]), min_size=1, max_size=30),
        min_size=1,
        max_size=5,
    ),
    st.floats(0, 0.99),
)
def test_a_global_budget_is_met_to_the_weight_also_among_equal_scores(scores, sparsity):
    scores = {str(i): torch.tensor(row) for i, row in enumerate(scores)}
    total = sum(map(len, scores.values()))
    mine = layer_shares(
        scores.__getitem__, {name: len(row) for name, row in scores.items()}, sparsity
    )
    counts = {name: round(mine[name] * len(row)) for name, row in scores.items()}
    assert sum(counts.values()) == round(sparsity * total)
    smallest = torch.cat(list(scores.values())).sort().values[: sum(counts.values())].double().sum()
    removed = sum(row.sort().values[: counts[name]].double().sum() for name, row in scores.items())
    assert removed == pytest.approx(float(smallest))


# --- what each method sees ------------------------------------------------------------------------


def test_wanda_with_equal_inputs_is_magnitude():
    weight, seen = weight_of(), InputStats(40, CPU, wants_gram=False)
    seen.add(torch.ones(10, 40) * torch.tensor([[1.0], [-1.0]]).repeat(5, 1))
    assert torch.equal(
        compress(Wanda(scope="layer"), weight, seen).to_dense(), pruned_weight(Magnitude(), weight)
    )


def test_wanda_spares_the_weights_behind_a_loud_input():
    weight, seen = weight_of(), InputStats(40, CPU, wants_gram=False)
    inputs = torch.randn(100, 40, generator=torch.Generator().manual_seed(4))
    inputs[:, 7] *= 1000
    seen.add(inputs)
    assert (compress(Wanda(sparsity=0.8), weight, seen).to_dense()[:, 7] != 0).all()


def test_random_draws_differ_by_number_and_by_layer_and_repeat():
    weight = weight_of()
    one, other = (plan(Random(draw=draw), LAYERS) for draw in (0, 1))
    masks = [pruned_weight(config, weight) != 0 for config in (*one.values(), *other.values())]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    assert torch.equal(pruned_weight(one["a"], weight), pruned_weight(one["a"], weight))


LAYERS = [Layer("a", "linear", (24, 40), 4, ""), Layer("b", "linear", (24, 40), 4, "")]


def test_sparsegpt_with_uncorrelated_inputs_changes_no_weight_that_stays():
    weight, seen = weight_of(), InputStats(40, CPU)
    seen.add(
        torch.eye(40) * torch.rand(40, generator=torch.Generator().manual_seed(5)).add(0.5)[:, None]
    )
    result = compress(SparseGPT(), weight, seen).to_dense()
    assert torch.equal(result[result != 0], weight[result != 0])


@for_each(
    "asked",
    [
        {},
        {"scope": "row"},
        {"pattern": "2:4"},
        {"pattern": "4:8"},
        {"sparsity": 0.7, "block_columns": 16},
    ],
)
def test_sparsegpt_loses_less_of_the_output_than_the_same_weights_removed_alone(request):
    weight, seen = weight_of(64, 96), seen_of(96, 400)
    result = compress(SparseGPT(**request), weight, seen).to_dense()
    alone = weight * (result != 0)
    assert output_error(result - weight, seen) < 0.9 * output_error(alone - weight, seen)


def test_sparsegpt_in_blocks_pushes_errors_on_as_in_one():
    """If the pattern determines what is removed, the number of columns per block has no effect."""
    weight, seen = weight_of(16, 96), seen_of(96, 400)
    results = [
        compress(SparseGPT(pattern="2:4", block_columns=width), weight, seen).to_dense()
        for width in (4, 30, 96)
    ]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-3, atol=1e-4)


def test_inputs_that_are_always_zero_cost_their_weights_nothing_more():
    weight, seen = weight_of(), InputStats(40, CPU)
    inputs = torch.randn(100, 40, generator=torch.Generator().manual_seed(6))
    inputs[:, 3] = 0
    seen.add(inputs)
    result = compress(SparseGPT(sparsity=0.3), weight, seen).to_dense()
    assert not result[:, 3].any() and result.isfinite().all() and "always zero" in seen.warnings[0]


# --- gradients ------------------------------------------------------------------------------------


@for_each("architecture", ["llama", "llama-tied", "gpt2", "bert", "resnet"])
def test_slopes_are_those_of_the_models_own_weights(tmp_path, architecture):
    """Against autograd through the plain transformers model."""
    at, batches = model_and_batches(tmp_path, architecture)
    names = [layer.name for layer in at.layers if layer.kind != "embedding" and not layer.tied_to][
        :4
    ]
    found = accumulate_gradients(at.model, names, batches, CPU, lambda *_: None)
    for name, (mean, square) in due_slopes(tmp_path, architecture, names, batches).items():
        torch.testing.assert_close(found[name].mean, mean, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(found[name].square, square, rtol=1e-3, atol=1e-9)


def model_and_batches(tmp_path, architecture: str) -> tuple:
    folder = resolve_model(str(tiny(architecture, tmp_path)))
    draw = torch.Generator().manual_seed(7)
    if architecture == "resnet":
        return load_model(folder, CPU, torch.float32), [
            {"pixel_values": torch.randn(3, 1, 16, 16, generator=draw)}
        ]
    return load_model(folder, CPU, torch.float32), [
        {"input_ids": torch.randint(5, 250, (2, 12), generator=draw)} for _ in range(2)
    ]


def due_slopes(
    tmp_path, architecture: str, names: list[str], batches: list[Batch]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
    )

    kinds = {"bert": AutoModelForSequenceClassification, "resnet": AutoModelForImageClassification}
    model = kinds.get(architecture, AutoModelForCausalLM).from_pretrained(tmp_path).eval()
    each: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for batch in batches:
        for row in range(len(next(iter(batch.values())))):
            example = {key: value[row : row + 1] for key, value in batch.items()}
            model.zero_grad()
            logits = model(**example).logits
            causal = architecture not in kinds
            labels = example["input_ids"][0, 1:] if causal else logits.argmax(-1)
            nn.functional.cross_entropy(logits[0, :-1] if causal else logits, labels).backward()
            for name in names:
                gradient = model.get_submodule(name).weight.grad
                each[name].append(
                    (gradient.T if architecture == "gpt2" else gradient.flatten(1)).clone()
                )
    return {
        name: (torch.stack(found).mean(0), torch.stack(found).square().mean(0))
        for name, found in each.items()
    }


def test_a_layer_that_the_loss_does_not_feel_is_kept_with_the_reason_and_none_at_all_is_refused(
    tmp_path,
):
    at, batches = model_and_batches(tmp_path, "llama")
    up = at.model.get_submodule("model.layers.0.mlp.up_proj")
    for module in (up, at.model.get_submodule("model.layers.0.mlp.down_proj")):
        module.stored = DenseWeight(module.stored.shape, torch.zeros(module.stored.shape))
    with pytest.raises(PlainError, match="no gradient for any"):
        accumulate_gradients(
            at.model, ["model.layers.0.mlp.up_proj"], batches, CPU, lambda *_: None
        )
    assert set(
        accumulate_gradients(
            at.model, ["model.layers.0.mlp.up_proj", "lm_head"], batches, CPU, lambda *_: None
        )
    ) == {"lm_head"}
    assert why_not_seen(Taylor(), up) == NO_GRADIENT


def test_the_slope_scores_are_the_papers():
    weight = weight_of()
    slopes = slopes_like(weight)
    torch.testing.assert_close(importance(Taylor(), weight, slopes), (slopes.mean * weight).abs())
    torch.testing.assert_close(
        importance(OptimalBrainDamage(), weight, slopes), 0.5 * slopes.square * weight**2
    )


# --- storage --------------------------------------------------------------------------------------


@for_each("dtype", [torch.float32, torch.bfloat16])
@for_each("storage", ["dense", "bitmask", "csr", "n-of-m"])
@for_each("shape", [(24, 40), (3, 4), (7, 172)])
def test_every_way_of_storing_gives_the_weight_back_and_knows_its_bytes(shape, storage, dtype):
    config = Magnitude(pattern="2:4", storage=storage)
    weight = weight_of(*shape).to(dtype)
    weight = weight * keep_mask(weight.float().abs(), config)
    stored = sparse_weight(weight, storage, (2, 4))
    assert torch.equal(stored.to_dense(dtype), weight)
    assert (
        stored.nbytes
        == storage_sizes_bytes(shape, int(weight.count_nonzero()), weight.itemsize, (2, 4))[storage]
        == sum(stored.byte_breakdown().values())
    )
    again = weight_from_settings(stored.settings(), stored.tensors())
    assert torch.equal(again.to_dense(dtype), weight)


@given(st.integers(1, 9), st.integers(1, 70), st.floats(0, 1), st.integers(0, 99))
def test_any_weight_with_any_zeros_survives_every_way(out, in_, sparsity, seed):
    weight = weight_of(out, in_, seed) * (
        torch.rand(out, in_, generator=torch.Generator().manual_seed(seed + 1)) >= sparsity
    )
    for kind in (Bitmask, CSR):
        assert torch.equal(kind.of(weight).to_dense(), weight)


def test_zeros_that_were_there_before_fit_a_pattern_too():
    weight = torch.tensor([[0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0]])
    assert torch.equal(NOfM.of(weight, 2, 4).to_dense(), weight)


@for_each(
    ("asked", "kind"),
    [
        ({"sparsity": 0.05}, "dense"),
        ({"sparsity": 0.5}, "bitmask"),
        ({"sparsity": 0.99}, "csr"),
        ({"pattern": "2:4"}, "bitmask"),
    ],
)
def test_the_smallest_way_is_chosen_unless_told_otherwise(request, kind):
    weight = weight_of(64, 256)
    stored = compress(Magnitude(values="bfloat16", **request), weight)
    assert stored.kind == kind and stored.nbytes == min(
        storage_sizes_bytes((64, 256), int(stored.to_dense().count_nonzero()), 2).values()
    )


@for_each(
    "asked",
    [
        {},
        {"sparsity": 0.02},
        {"sparsity": 0.99},
        {"scope": "row"},
        {"pattern": "4:8"},
        {"pattern": "2:4", "storage": "n-of-m"},
    ],
)
@for_each("values", ["float32", "float16"])
@for_each("method", [Magnitude, SparseGPT])
def test_the_forecast_is_what_is_stored(method, values, request):
    weight, config = weight_of(), method(values=values, **request)
    assert storage_plan(config, (24, 40)).nbytes == compress(*given_to(config, weight)).nbytes


def test_what_is_left_has_the_files_number_format():
    half = Layer("a", "linear", (24, 40), 2, "", "bfloat16")
    config = plan(Magnitude(), [half])["a"]
    assert compress(config, weight_of().bfloat16().float()).values.dtype == torch.bfloat16


# --- portraits ------------------------------------------------------------------------------------


@for_each("method", EVERY)
def test_a_portrait_counts_every_weight(method):
    weight = weight_of(50, 90)
    request = given_to(method(sparsity=0.3), weight)
    stored = compress(*request)
    rows = diagnostics(request[0], "layer", weight, stored, *(request[2:] or [None]))
    left, removed = (
        sum(row.stays for row in rows.importance),
        sum(row.goes for row in rows.importance),
    )
    assert left == int(stored.to_dense().count_nonzero()) and left + removed == weight.numel()
    (tiles,) = rows.masks
    assert len(tiles) == 25 * 30 and tiles.left.mean() == pytest.approx(
        left / weight.numel(), abs=1e-6
    )
    assert [row.way for row in rows.storage if row.chosen] == [stored.kind]


# --- bad input ------------------------------------------------------------------------------------


@for_each(
    ("step", "words"),
    [
        ({"pattern": "4:2"}, "less than M"),
        ({"pattern": "4:4"}, "less than M"),
        ({"pattern": "0:4"}, "at least 1"),
        ({"pattern": "half"}, "give N:M"),
        ({"sparsity": 1.0}, "0.99"),
        ({"sparsity": -0.1}, "0"),
        ({"storage": "n-of-m"}, "needs a pattern"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [{"technique": "magnitude", **step}]})
    assert "\n" not in str(refused.value)


def test_a_width_that_m_does_not_divide_names_the_layer():
    layers = [LAYERS[0], Layer("model.mlp.down", "linear", (8, 172), 4, "")]
    with pytest.raises(
        PlainError,
        match=(
            r"model\.mlp\.down: A row of 172 weights cannot be cut into groups of 8; name the "
            r"layer"
        ),
    ):
        plan(Magnitude(pattern="4:8"), layers)


def test_a_layer_is_not_emptied():
    with pytest.raises(PlainError, match="No weight would be left"):
        compress(Magnitude(sparsity=0.99), weight_of(2, 3))


@for_each("method", EVERY)
def test_a_layer_of_zeros_stays_one(method):
    weight = torch.zeros(24, 40)
    assert not pruned_weight(method(), weight).any()


def test_every_share_of_a_label_is_said():
    assert Magnitude().label() == "Magnitude pruning (L1) 50%"
    assert SparseGPT(pattern="2:4").label() == "SparseGPT 2:4"
    assert Wanda(sparsity=0.6, scope="row").label() == "Wanda 60% of each row"
    assert math.isclose(Magnitude(pattern="1:4").removed_share, 0.75)


def test_a_run_that_would_empty_a_layer_names_it(tmp_path):
    model = tiny("resnet", tmp_path / "model", hidden_sizes=[12, 20])
    with pytest.raises(
        PlainError, match=r"^resnet\.\S+: No weight would be left; remove a smaller share"
    ):
        run(
            recipe_for(
                "resnet",
                model,
                tmp_path / "data",
                {"technique": "magnitude", "sparsity": 0.99, "scope": "row"},
            )
        )


def test_a_run_at_zero_sparsity_measures_the_original_again(tmp_path):
    outcome = run(
        recipe_for(
            "llama",
            tiny("llama", tmp_path / "model"),
            tmp_path / "data",
            {"technique": "sparsegpt", "sparsity": 0},
        )
    )
    assert outcome.summary.result.perplexity == outcome.summary.baseline.perplexity
    assert (outcome.tables.layers.relative_error.dropna() == 0).all() and (
        outcome.tables.storage.way[outcome.tables.storage.chosen] == "dense"
    ).all()
