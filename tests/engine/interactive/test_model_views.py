"""Views of a model and its layers."""

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from engine.errors import PlainError
from tests.answers import forecast, layer_view, model_view, what_if
from tests.cases import for_each
from tests.questions import LAYERS, STEPS
from tests.tiny import tiny


@pytest.mark.parametrize("architecture", LAYERS)
def test_a_layers_spectrum_is_numpys(architecture, bfloat16_folders):
    layer = LAYERS[architecture]
    weight = load_file(bfloat16_folders[architecture] / "model.safetensors")[
        f"{layer}.weight"
    ].float()
    weight = weight.T if architecture == "gpt2" else weight.flatten(1)
    view = layer_view(str(bfloat16_folders[architecture]), layer)
    due = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(view.spectrum.singular_value, due, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        view.spectrum.cumulative_energy, np.cumsum(due**2) / np.sum(due**2), rtol=1e-4
    )
    np.testing.assert_allclose(view.channels.maximum, weight.numpy().max(1))
    assert view.histogram["count"].sum() == weight.numel() and list(view.spectrum["index"]) == list(
        range(1, len(due) + 1)
    )


def test_a_model_view_lists_every_layer_as_it_is(bfloat16_folders):
    for name, folder in bfloat16_folders.items():
        view = model_view(str(folder))
        assert (view.layers.bits_per_weight == 16).all() and view.size_bytes == (
            folder / "model.safetensors"
        ).stat().st_size, name
        assert (
            view.layers.original_bytes.sum() < view.size_bytes
            and view.layers.relative_error.isna().all()
        )


def test_an_unknown_layer_is_answered_in_a_sentence(bfloat16_folders):
    for ask in (
        lambda: layer_view(str(bfloat16_folders["llama"]), "no.such"),
        lambda: what_if(str(bfloat16_folders["llama"]), "no.such", STEPS[0]),
    ):
        with pytest.raises(
            PlainError,
            match=r"^The model has no layer called 'no\.such'; choose one from the list\.$",
        ):
            ask()


def without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def with_a_nan(folder):
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@for_each(
    ("spoil", "words"),
    [(with_a_nan, "holds NaN or infinite numbers"), (without_tokenizer, "tokenizer")],
)
@for_each(
    "ask",
    [
        model_view,
        lambda model: layer_view(model, LAYERS["llama"]),
        lambda model: forecast({"model": model, "steps": STEPS[:1]}),
    ],
)
def test_opening_a_damaged_model_gives_the_message_of_a_run(ask, spoil, words, tmp_path):
    spoil(tiny("llama", tmp_path))
    with pytest.raises(PlainError, match=words):
        ask(str(tmp_path))
