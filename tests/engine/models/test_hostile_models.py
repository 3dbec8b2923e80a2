"""Hostile model folders are answered or refused with a message, without much time or memory."""

import json
import os
import re
import shutil
import struct
import tempfile
from pathlib import Path

import pytest

from engine.errors import PlainError
from engine.models import model_source as folders
from engine.models.loading import image_processor_of, meta_model
from engine.models.model_source import read_header, resolve_model
from tests.answers import model_view
from tests.cases import for_each
from tests.hostile_models import asked_as_a_page, hostile, library

FIRST_SEED, FOLDERS = 1000, 40
SENTENCE = r"^[A-Z'][^\n]*\.$"


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    return library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def copy_model(bases, tmp_path):
    """Copy a valid folder and set fields of its config.json, or of a nested part."""

    def copy(base: str, part: str = "", **fields) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path), "model")
        shutil.copytree(bases[base], folder)
        config = json.loads((folder / "config.json").read_text())
        (config.setdefault(part, {}) if part else config).update(fields)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


def test_a_hostile_folder_is_answered_or_refused_in_a_sentence(bases, tmp_path):
    refused = 0
    for seed in range(FIRST_SEED, FIRST_SEED + FOLDERS):
        done = hostile(bases, tmp_path / str(seed), seed)
        outcome = asked_as_a_page(tmp_path / str(seed), calibrated=seed % 4 == 0)
        assert not outcome.traceback, f"seed {seed}, {done}\n{outcome.traceback}"
        assert not outcome.sentence or outcome.sentence.endswith("."), (
            f"seed {seed}, {done}: {outcome.sentence}"
        )
        refused += bool(outcome.sentence)
    assert FOLDERS / 3 < refused < FOLDERS, "some are spoiled, and some are sound enough"


def test_a_valid_folder_of_every_kind_is_answered(bases):
    for base in bases.values():
        (base / "text.txt").write_text("The weights of a layer are rounded to four bits. " * 100)
        outcome = asked_as_a_page(base)
        assert (outcome.sentence, outcome.traceback) == ("", "")


COUNTS = [
    ("llama", "", {"num_hidden_layers": 10_000_000}),
    ("llama", "", {"num_hidden_layers": 10**12}),  # transformers creates a list of this length
    ("gpt2", "", {"n_layer": 10_000_000}),
    ("resnet", "", {"depths": [1, 10**9]}),
    ("bert", "", {"num_labels": 10**9}),
    ("llama", "text_config", {"num_hidden_layers": 10_000_000}),
    ("llama", "vision_config", {"depth": 10_000_000}),
    ("llama", "", {"attention_types": [[["global"], 10**9]]}),
]


@for_each("base, part, fields", COUNTS, ids=lambda value: str(value)[:40])
def test_counts_in_config_json_beyond_what_the_files_hold_are_refused_at_once(
    copy_model, base, part, fields
):
    with pytest.raises(
        PlainError, match=f"config.json of .* (sets|has) .*{next(iter(fields))}.*download"
    ) as refused:
        resolve_model(str(copy_model(base, part, **fields)))
    assert "000,000" in str(refused.value)


BUILT = [
    ("llama", {"vocab_size": 10**9}),
    ("llama", {"hidden_size": 48_000_000}),
    ("llama", {"intermediate_size": 10**9}),
    ("gpt2", {"n_positions": 10**8}),
    ("mixtral", {"num_local_experts": 10**6}),
    ("vit", {"image_size": 10**6}),
]


@for_each("base, fields", BUILT, ids=lambda value: str(value)[:40])
def test_a_model_much_larger_than_its_files_is_refused_while_it_is_built(copy_model, base, fields):
    """Refused by questions and forecasts; neither needs the memory of such a model."""
    folder = copy_model(base, **fields)
    for build in (lambda: meta_model(resolve_model(str(folder))), lambda: model_view(str(folder))):
        with pytest.raises(
            PlainError,
            match=(
                r"describes a model with (more than|tables of more than) .*its weight files do "
                r"not contain"
            ),
        ):
            build()


def test_more_tensors_than_stored_are_refused_after_a_few_thousand(copy_model, monkeypatch):
    """For a layer count with an unknown name."""
    monkeypatch.setattr("engine.models.config_check.LAYER_COUNT", re.compile("never"))
    folder = resolve_model(
        str(
            copy_model(
                "llama",
                num_hidden_layers=10_000,
                hidden_size=4,
                num_attention_heads=2,
                intermediate_size=4,
            )
        )
    )
    with pytest.raises(PlainError, match=r"more than 2,\d\d\d tensors"):
        meta_model(folder)


def test_experts_stacked_in_one_tensor_count_one_by_one(bases):
    """A model may read them from one tensor and store them separately, or the reverse."""
    folder = resolve_model(str(bases["mixtral"]))
    experts = 8
    stacked = [{"shape": [experts, 16, 16], "data_offsets": [0, experts * 16 * 16]}]
    apart = [{"shape": [16, 16], "data_offsets": [0, 16 * 16]}] * experts
    count = folders.header_totals
    assert (
        count(stacked).tensors == count(apart).tensors
        and count(stacked).parameters == count(apart).parameters
    )
    assert (
        meta_model(folder).num_parameters() <= folders.tensor_totals(folder.files, "it").parameters
    )


def test_a_shape_that_its_bytes_cannot_hold_allows_nothing(bases):
    assert (
        folders.header_totals([{"shape": [10**9, 10**9], "data_offsets": [0, 48]}]).parameters == 0
    )
    assert (
        folders.header_totals([{"shape": [0, 10**9], "data_offsets": [0, 0]}]).largest_dimension
        == 0
    )


def sparse(file: Path, header_bytes: int, size: int) -> None:
    """File of the given size that takes no space on disk."""
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", header_bytes))
        stream.truncate(size)


def test_a_header_longer_than_safetensors_reads_is_refused_unread(copy_model):
    folder = copy_model("llama")
    sparse(folder / "model.safetensors", 6 * 10**9, 7 * 10**9)
    with pytest.raises(
        PlainError, match=r"header of 6,000,000,000 bytes; at most 100,000,000 bytes"
    ):
        resolve_model(str(folder))


def test_more_tensors_in_a_header_than_any_model_has_are_refused(copy_model, monkeypatch):
    monkeypatch.setattr(folders, "MAX_TENSORS", 5)
    with pytest.raises(PlainError, match="at most .* 5 tensors"):
        read_header(copy_model("llama") / "model.safetensors", "it")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_a_file_that_describes_a_model_is_not_read_beyond_its_limit(copy_model, name):
    folder = copy_model("llama")
    os.truncate(folder / name, 0) if (folder / name).exists() else (folder / name).touch()
    os.truncate(folder / name, 10**11)
    with pytest.raises(
        PlainError, match=rf"{name} of .* has 100,000,000,000 bytes; at most 100,000,000 are read"
    ):
        resolve_model(str(folder))


def test_images_are_not_enlarged_beyond_memory(copy_model):
    folder = copy_model("vit")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor | {"size": {"height": 10**6, "width": 10**6}})
    )
    with pytest.raises(PlainError, match="preprocessor_config.json of .* sets .* 1,000,000 pixels"):
        image_processor_of(resolve_model(str(folder)))
