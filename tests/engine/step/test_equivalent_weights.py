"""A technique may move weights across blocks before it compresses: the model's function stays."""

from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.layer_report import REWRITTEN
from engine.pipeline.run import run
from engine.step.equivalent_weights import EquivalentWeights
from engine.step.pruning_plan import TechniqueInput
from engine.techniques.implementations import equivalent_weights
from engine.techniques.quantization.float_formats.config import FloatingPoint
from engine.techniques.quantization.rounding.config import RoundToNearest
from tests.recipes import recipe_for
from tests.tiny import tiny

CPU = torch.device("cpu")
READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
WRITERS = ("self_attn.o_proj", "mlp.down_proj")


class Rotated(FloatingPoint):
    """Stores the weights of a rotated model in a longer format, which loses nothing."""


class RotatedRounding(RoundToNearest):
    """Rounds the weights of a rotated model."""


@equivalent_weights.register(Rotated)
@equivalent_weights.register(RotatedRounding)
def rotated_residual_stream(config: Rotated, subject: TechniqueInput) -> EquivalentWeights:
    """Fold the scale of each norm of a Llama into the layers after it, and rotate the residual
    stream of all blocks.
    """
    model, plain = subject.original.model, subject.original.plain
    width = model.config.hidden_size
    draw = torch.randn(
        width, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    rotation = torch.linalg.qr(draw).Q

    def weight(name: str) -> torch.Tensor:
        return model.get_submodule(name).stored.to_dense(torch.float64)

    layers = {"model.embed_tokens": weight("model.embed_tokens") @ rotation}
    norms = {"model.norm": ["lm_head"]}
    for number in range(model.config.num_hidden_layers):
        block = f"model.layers.{number}"
        norms |= {
            f"{block}.{norm}": [f"{block}.{name}" for name in names]
            for norm, names in READERS.items()
        }
        layers |= {f"{block}.{name}": rotation.T @ weight(f"{block}.{name}") for name in WRITERS}
    for norm, names in norms.items():
        scale = plain[f"{norm}.weight"].double()
        layers |= {name: weight(name) * scale @ rotation for name in names}
    return EquivalentWeights(layers, {f"{norm}.weight": torch.ones(width) for norm in norms})


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama whose norms have scales of their own."""
    place = tiny("llama", tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(place)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for name, value in model.named_parameters():
            if "norm" in name:
                value.data = 0.5 + torch.rand(value.shape)
    model.save_pretrained(place)
    return place


@pytest.fixture
def recipe(folder, tmp_path):
    def of(*steps):
        recipe = recipe_for("llama", folder, tmp_path / "data", {"technique": steps[0].technique})
        return recipe.model_copy(update={"steps": steps})

    return of


def logits(folder) -> torch.Tensor:
    model = load_model(resolve_model(str(folder)), CPU, torch.float32).model
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 37)[None]).logits


def test_a_rotated_model_is_saved_with_the_same_function(folder, recipe, tmp_path):
    outcome = run(recipe(Rotated(format="float64")), save=tmp_path / "saved")
    torch.testing.assert_close(logits(tmp_path / "saved"), logits(folder), rtol=1e-3, atol=1e-5)
    summary = outcome.summary
    assert summary.result.perplexity == pytest.approx(summary.baseline.perplexity, rel=1e-5)
    rows = outcome.tables.layers.set_index("name")
    assert REWRITTEN in rows.note["model.embed_tokens"]
    one, other = (
        load_model(resolve_model(str(place)), CPU, torch.float32)
        for place in (folder, tmp_path / "saved")
    )
    held = [at.model.get_submodule("model.embed_tokens").stored.to_dense() for at in (one, other)]
    assert held[0].shape == held[1].shape and (held[0] - held[1]).norm() > held[0].norm()
    assert other.plain["model.norm.weight"].eq(1).all()
    assert not one.plain["model.norm.weight"].eq(1).any(), "the original's files are untouched"


@pytest.mark.parametrize(
    "steps",
    [
        (RotatedRounding(bits=8),),
        (Rotated(format="float64"), RoundToNearest(bits=8)),
    ],
    ids=["in the same step", "in a later step"],
)
def test_errors_refer_to_the_rotated_weights(steps, recipe):
    outcome = run(recipe(*steps))
    errors = outcome.tables.layers.query("technique == 'round-to-nearest'").relative_error
    assert len(errors) and 0 < errors.max() < 0.02
    summary = outcome.summary
    assert summary.result.perplexity == pytest.approx(summary.baseline.perplexity, rel=0.02)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": {"lm_head": torch.ones(2, 3)}}, r"lm_head was given with shape \(2, 3\)"),
        ({"layers": {"model.norm": torch.ones(48)}}, "no such tensor"),
        ({"plain": {"model.norm.weight": torch.ones(4)}}, r"the model has \(48,\)"),
    ],
)
def test_a_tensor_of_another_name_or_shape_is_refused(given, message, folder):
    source = resolve_model(str(folder))
    apply = partial(
        EquivalentWeights(**given).apply, load_model(source, CPU, torch.float32), source
    )
    with pytest.raises(ValueError, match=message):
        apply(torch.float32)


def test_the_weights_of_tied_layers_change_together(tmp_path):
    source = resolve_model(str(tiny("llama-tied", tmp_path / "model")))
    original = load_model(source, CPU, torch.float32)
    (tied,) = original.tied_layers
    held = original.model.get_submodule(tied.tied_to).stored
    new = EquivalentWeights({tied.tied_to: held.to_dense() * 2})
    after = new.apply(original, source, torch.float32).model
    assert torch.equal(after.get_submodule(tied.name).stored.to_dense(), held.to_dense() * 2)
    assert torch.equal(original.model.get_submodule(tied.name).stored.to_dense(), held.to_dense())
