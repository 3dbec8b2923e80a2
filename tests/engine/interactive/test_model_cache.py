"""Caches of a worker between questions: the next slider position is fast, and memory is limited."""

import pytest
import torch

from engine.interactive import model_cache
from engine.interactive.model_cache import CACHE, Recent, tensor_bytes
from engine.tensors.weights import DenseWeight
from tests.answers import layer_view, lesson, model_view, what_if
from tests.questions import LAYERS
from tests.tiny import SENTENCES, tiny

BLOCK = "model.layers.0.mlp"
MEASURED_LAYERS = [
    f"{BLOCK}.gate_proj",
    f"{BLOCK}.up_proj",
    f"{BLOCK}.down_proj",
    "model.layers.1.self_attn.q_proj",
]


@pytest.fixture(autouse=True)
def nothing_kept():
    """Start each test with empty caches, and restore the number of threads."""
    CACHE.clear()
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(tmp_path) -> str:
    return str(tiny("llama", tmp_path / "model", torch.bfloat16))


@pytest.fixture
def data_options(tmp_path) -> dict:
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES) * 300)
    text = {"text": str(tmp_path / "text.txt"), "context": 16}
    return {
        "task": {"kind": "language-modeling", "tokens": 64, **text},
        "calibration": text | {"samples": 2},
    }


def gptq(model, layer, data_options, bits=4):
    return what_if(model, layer, {"technique": "gptq", "bits": bits}, data_options)


def test_what_layers_see_is_kept_within_its_bytes_the_latest_longest(
    model, data_options, monkeypatch
):
    kept = CACHE.statistics.values
    gptq(model, MEASURED_LAYERS[0], data_options)
    (one,) = map(tensor_bytes, kept.values())
    kept.clear()
    monkeypatch.setattr(CACHE.statistics, "capacity", int(2.5 * one))
    for layer in MEASURED_LAYERS:
        gptq(model, layer, data_options)
        assert len(kept) == 1 or sum(map(tensor_bytes, kept.values())) <= 2.5 * one
    assert next(reversed(kept))[2] == MEASURED_LAYERS[-1] and len(kept) < len(MEASURED_LAYERS)


def test_calibration_data_runs_through_the_model_once_for_all_positions_of_a_slider(
    model, data_options, monkeypatch
):
    first = gptq(model, MEASURED_LAYERS[0], data_options, bits=3)
    monkeypatch.setattr(model_cache, "calibration_batches", None)  # must not be called again
    second = gptq(model, MEASURED_LAYERS[0], data_options, bits=4)
    assert second.row.relative_error < first.row.relative_error


def test_a_layers_weight_is_unpacked_once_for_all_positions_and_its_rows_are_the_layers(
    model, monkeypatch
):
    layer, step = (
        MEASURED_LAYERS[2],
        {"technique": "round-to-nearest", "bits": 3, "range": "absmax"},
    )
    monkeypatch.setattr(model_cache, "LIVE_WEIGHTS", 12 * 172)
    few = what_if(model, layer, step)
    monkeypatch.undo()
    whole = what_if(model, layer, step)
    assert (few.row.shape, whole.row.shape) == ((12, 172), (48, 172))
    assert few.channels.equals(whole.channels[:12])
    unpacked, dense = [], DenseWeight.to_dense
    monkeypatch.setattr(
        DenseWeight,
        "to_dense",
        lambda self, *dtype: unpacked.append(self.weight.dtype) or dense(self, *dtype),
    )
    what_if(model, layer, step | {"bits": 2})
    assert torch.bfloat16 not in unpacked, "as the file has it"


def test_spectra_are_kept_up_to_a_number_of_layers(model, monkeypatch):
    monkeypatch.setattr(CACHE.spectra, "capacity", 2)
    for layer in MEASURED_LAYERS:
        layer_view(model, layer)
    assert [key[2] for key in CACHE.spectra.values] == MEASURED_LAYERS[-2:]


def test_bytes_are_counted_in_lists_mappings_and_objects():
    class Held:
        def __init__(self):
            self.one, self.many, self.named, self.count = (
                torch.zeros(3),
                [torch.zeros(2, dtype=torch.uint8)],
                {"a": torch.zeros(1)},
                7,
            )

    assert tensor_bytes(Held()) == 12 + 2 + 4


def test_a_model_that_changed_on_disk_is_opened_again(tmp_path):
    folder = tiny("llama", tmp_path / "model")
    before = layer_view(str(folder), LAYERS["llama"]).spectrum
    tiny("llama", folder, seed=1)
    assert not layer_view(str(folder), LAYERS["llama"]).spectrum.equals(before)


def test_only_a_few_models_are_kept_at_hand(bfloat16_folders):
    for folder in bfloat16_folders.values():
        model_view(str(folder))
    assert len(CACHE.models.values) == CACHE.models.capacity


def test_only_the_last_looks_are_kept(questions, monkeypatch):
    monkeypatch.setattr(CACHE, "previews", Recent(2))
    for step in ("rounding", "nf4", "int8"):
        lesson(**questions("llama", step))
    assert len(CACHE.previews.values) == 2
