"""Small malformed folders, and recipes that do not match their model, give one message each."""

import json
import random

import pytest

from engine.errors import PlainError
from engine.models.loading import tokenizer_of
from engine.models.model_source import resolve_model
from tests.answers import forecast, model_view
from tests.cases import for_each
from tests.tiny import tiny

GOOD = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
ODD_ENTRIES = (
    *(None, 7, "F32", [], {}, {"dtype": "F32"}),
    *(GOOD | {"dtype": dtype} for dtype in (["F32"], None, {})),
    *(GOOD | {"shape": shape} for shape in (None, "1", [-1], [True], [[1]])),
    *(
        GOOD | {"data_offsets": offsets}
        for offsets in ([0], [4, 0], "04", [None, 4], [0, 4.0], [0, 4, 8])
    ),
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("models") / "llama")


@for_each("entry", ODD_ENTRIES, ids=map(str, range(len(ODD_ENTRIES))))
def test_an_odd_header_entry_is_refused_in_a_sentence(entry, llama, tmp_path):
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    header = json.dumps({"weight": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )
    with pytest.raises(PlainError, match="is cut short or no safetensors file|has .* bytes where"):
        resolve_model(str(tmp_path))


def test_a_folder_broken_at_random_is_read_or_refused(llama, tmp_path):
    """Any byte of the configuration or the header may be wrong."""
    draw, refused = random.Random(0), 0
    weights = (llama / "model.safetensors").read_bytes()
    length = int.from_bytes(weights[:8], "little")
    for _ in range(300):
        config, header = (
            bytearray((llama / "config.json").read_bytes()),
            bytearray(weights[8 : 8 + length]),
        )
        part = draw.choice((config, header))
        for _ in range(draw.choice((1, 1, 3))):
            place, value = (
                draw.randrange(len(part)),
                draw.choice(
                    (b"", b"[", b"null", b"{}", b"-", b'"', b"9" * 30, bytes([draw.randrange(256)]))
                ),
            )
            part[place : place + draw.randrange(12)] = value
        (tmp_path / "config.json").write_bytes(config)
        (tmp_path / "model.safetensors").write_bytes(
            len(header).to_bytes(8, "little") + header + weights[8 + length :]
        )
        try:
            resolve_model(str(tmp_path))
        except PlainError as error:
            refused += 1
            assert len(str(error)) < 1000
    assert 100 < refused < 300


@for_each("architecture", ["bert", "distilbert", "llama", "gpt2"])
def test_a_tokenizer_without_its_configuration_works_or_says_what_is_missing(
    architecture, tmp_path
):
    folder = tiny(architecture, tmp_path)
    (folder / "tokenizer_config.json").unlink()
    try:
        assert max(tokenizer_of(resolve_model(str(folder)))("A text.")["input_ids"]) < 288
    except PlainError as error:
        assert "tokenizer_config.json" in str(error)


def test_a_bert_without_a_tokenizer_configuration_is_refused_before_a_run_is_offered(tmp_path):
    folder = tiny("bert", tmp_path)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(PlainError, match="cannot tokenize text .* add tokenizer_config"):
        model_view(str(folder))


@for_each("technique", ["qlora", "gptq", "distill", "magnitude", "svd"])
def test_a_forecast_refuses_a_task_of_another_kind_as_a_run_does(technique, tmp_path):
    folder = tiny("resnet", tmp_path)
    with pytest.raises(
        PlainError, match="is a image-classification model .* set task.kind to image-classification"
    ):
        forecast({"model": str(folder), "steps": [{"technique": technique}]})
