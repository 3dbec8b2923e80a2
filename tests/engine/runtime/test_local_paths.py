"""A shared server reads models and data only below one folder, however and wherever a path is
written.
"""

import os
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from engine.errors import PlainError
from engine.evaluation.data.examples import load_examples, load_text
from engine.models.model_source import resolve_model
from engine.pipeline.run import run
from engine.queries import ModelQuery
from engine.recipe import Recipe
from engine.recipe.model_names import ModelName
from engine.recipe.tasks import ImageClassification, TextClassification
from engine.runtime.local_paths import (
    PathLimit,
    allow_folder,
    apply_path_limit,
    check_path,
    check_sources,
    path_limit,
)
from engine.session.worker_tasks import answer_query
from tests.cases import for_each
from tests.tiny import SENTENCES, tiny

STEP = {"technique": "round-to-nearest", "bits": 4, "group_size": 4}


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """Files outside the folder: a model, texts, labels and an image."""
    folder = tmp_path_factory.mktemp("secret")
    tiny("llama", folder / "model")
    fill(folder)
    return folder


def fill(folder: Path) -> None:
    (folder / "text.txt").write_text(" ".join(SENTENCES) * 30)
    pd.DataFrame({"text": SENTENCES, "label": [n % 2 for n in range(len(SENTENCES))]}).to_csv(
        folder / "labels.csv", index=False
    )
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "image.png")


@pytest.fixture
def shared_folder(tmp_path, monkeypatch):
    """Folder that the server may read."""
    folder = tmp_path / "shared"
    folder.mkdir()
    tiny("llama", folder / "model")
    fill(folder)
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED", "1")
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED_FOLDER", str(folder))
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "home"))
    return folder


def ways_to(target: Path, shared_folder: Path) -> list[str]:
    """Texts for one place outside the folder."""
    (shared_folder / "link").unlink(missing_ok=True)
    (shared_folder / "link").symlink_to(target)
    (shared_folder / "up").unlink(missing_ok=True)
    (shared_folder / "up").symlink_to(target.parent, target_is_directory=True)
    return [
        str(target),
        str(shared_folder / "link"),
        str(shared_folder / "up" / target.name),
        os.path.relpath(target),
        f"{shared_folder}/../{os.path.relpath(target, shared_folder.parent)}",
    ]


def test_without_sharing_every_path_is_allowed(secret, monkeypatch):
    monkeypatch.delenv("COMPRESSION_EXPLORER_SHARED", raising=False)
    assert path_limit() is None and check_path(secret) == secret
    assert ModelName.parse(str(secret / "model")).kind == "directory"


def test_a_model_outside_the_folder_is_refused_under_every_name(secret, shared_folder):
    assert ModelName.parse(str(shared_folder / "model")).kind == "directory"
    for text in ways_to(secret / "model", shared_folder):
        with pytest.raises(
            PlainError, match="outside .*shared, the only folder this shared server opens"
        ):
            ModelName.parse(text)


def test_a_refusal_does_not_tell_what_exists(secret, shared_folder):
    def error_message(path):
        with pytest.raises(PlainError) as error:
            ModelName.parse(str(path))
        return str(error.value).replace(path.name, "NAME")

    assert error_message(secret / "model") == error_message(secret / "nothing")


def test_data_outside_the_folder_are_refused_under_every_name(secret, shared_folder):
    assert load_text(str(shared_folder / "text.txt")).texts
    for text in ways_to(secret / "text.txt", shared_folder):
        with pytest.raises(PlainError, match="outside"):
            load_text(text)
    for text in ways_to(secret / "labels.csv", shared_folder):
        # the link has no suffix, so it is not data
        with pytest.raises(PlainError, match=r"outside|no file|without an ending"):
            load_examples(TextClassification(data=text))


@pytest.mark.parametrize("write", [str, lambda path: {"path": str(path)}], ids=["text", "mapping"])
def test_images_named_in_a_data_file_are_not_fetched_from_elsewhere(secret, shared_folder, write):
    def images(*paths):
        rows = [{"image": write(path), "label": 0} for path in paths]
        pd.DataFrame(rows).to_parquet(shared_folder / "images.parquet")
        return load_examples(ImageClassification(data=str(shared_folder / "images.parquet"))).inputs

    assert len(images("image.png", shared_folder / "image.png")) == 2
    (shared_folder / "picture.png").symlink_to(secret / "image.png")
    for path in (
        secret / "image.png",
        "picture.png",
        os.path.relpath(secret / "image.png", shared_folder),
    ):
        with pytest.raises(PlainError, match="outside"):
            images(path)


@for_each("name", ["text", "csv", "json", "parquet", "imagefolder"])
def test_a_file_format_is_not_a_dataset_name(shared_folder, monkeypatch, name):
    monkeypatch.chdir(shared_folder)
    with pytest.raises(
        PlainError, match=f"'{name}' is a file format, not a dataset; give bundled:NAME"
    ):
        load_text(name)


def test_a_hub_dataset_cannot_read_files_of_this_disk(secret, shared_folder, monkeypatch):
    """Its card contains absolute paths."""
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {secret / 'text.txt'}\n---\n"
    (shared_folder / "dataset").mkdir()
    (shared_folder / "dataset" / "README.md").write_text(card)
    # a folder replaces the Hub; the same code reads its card
    builder = datasets.load_dataset_builder(str(shared_folder / "dataset"))
    assert str(secret / "text.txt") in str(builder.config.data_files)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(PlainError, match="outside"):
        load_text("somebody/dataset")


def test_a_link_inside_a_models_folder_does_not_lead_out_of_it(secret, shared_folder):
    config = shared_folder / "model" / "config.json"
    config.unlink()
    config.symlink_to(secret / "model" / "config.json")
    recipe = Recipe.from_dict({"model": str(shared_folder / "model"), "steps": [STEP]})
    with pytest.raises(
        PlainError,
        match=r"link 'config\.json', which leads out of it; replace the link with the file",
    ):
        run(recipe)


def test_a_link_inside_the_folder_is_read_like_a_file(shared_folder):
    (shared_folder / "blob").write_bytes((shared_folder / "model" / "config.json").read_bytes())
    (shared_folder / "model" / "config.json").unlink()
    (shared_folder / "model" / "config.json").symlink_to(Path("..") / "blob")
    assert resolve_model(str(shared_folder / "model")).architecture


def test_a_recipe_is_refused_with_the_key_that_names_the_path(secret, shared_folder):
    good = {
        "model": str(shared_folder / "model"),
        "task": {"kind": "language-modeling", "text": str(shared_folder / "text.txt")},
        "steps": [STEP],
    }
    limit = path_limit()
    check_sources(Recipe.from_dict(good).model_dump(mode="json"), limit)
    distilled = {"technique": "distill", "student": str(secret / "model")}
    trained = {"steps": [{"technique": "distill"}], "training": {"train": str(secret / "text.txt")}}
    for key, parts in {
        "model": {"model": str(secret / "model")},
        "task.text": {"task": good["task"] | {"text": str(secret / "text.txt")}},
        "task.also": {
            "task": good["task"] | {"also": f"{shared_folder / 'model'}.txt, {secret / 'text.txt'}"}
        },
        "calibration.text": {"calibration": {"text": str(secret / "text.txt")}},
        "training.train": trained,
        "steps.0.student": {"steps": [distilled]},
    }.items():
        recipe = Recipe.from_dict(good | parts).model_dump(mode="json")
        with pytest.raises(PlainError, match=rf"^{key}: .*outside"):
            check_sources(recipe, limit)
        check_sources(recipe, None)


def test_patterns_of_layers_are_no_paths(shared_folder):
    recipe = Recipe.from_dict(
        {"model": "bundled:docs-lm", "layers": {"skip": ["/etc", "*.mlp.*"]}, "steps": [STEP]}
    )
    check_sources(recipe.model_dump(mode="json"), path_limit())


def test_without_a_folder_no_local_path_is_opened(secret, monkeypatch):
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED", "1")
    monkeypatch.delenv("COMPRESSION_EXPLORER_SHARED_FOLDER", raising=False)
    with pytest.raises(PlainError, match="does not open; give bundled:NAME or a Hub id"):
        ModelName.parse(str(secret / "model"))
    assert (
        ModelName.parse("bundled:docs-lm").kind == "bundled"
        and ModelName.parse("some/model").kind == "hub"
    )


def test_models_of_finished_runs_may_be_opened_and_nothing_else_of_a_run(tmp_path):
    runs = tmp_path / "runs"
    (runs / "abcd" / "model").mkdir(parents=True)
    limit = PathLimit(None, runs)
    assert limit.allows(runs / "abcd" / "model") and limit.allows(
        runs / "abcd" / "model" / "config.json"
    )
    for path in (
        runs,
        runs / "abcd",
        runs / "abcd" / "record.json",
        runs / "model",
        runs / "abcd" / "model" / ".." / "record.json",
    ):
        assert not limit.allows(path)


def test_invalid_paths_are_not_allowed(shared_folder, monkeypatch):
    monkeypatch.chdir(shared_folder.parent)
    Path("loop").symlink_to("loop")
    for path in ("~nobody-at-all/x", "a\0b", "x" * 5000, "loop"):
        assert not path_limit().allows(Path(path)), path


def test_a_limit_that_comes_with_a_job_holds_at_the_worker_and_ends_with_it(
    secret, shared_folder, monkeypatch
):
    limit = path_limit()
    monkeypatch.delenv("COMPRESSION_EXPLORER_SHARED")
    query = ModelQuery(str(secret / "model"))
    with pytest.raises(PlainError, match="outside"):
        answer_query(query, limit)
    assert answer_query(query).reference == query.model and path_limit() is None


def test_a_process_reads_back_what_it_wrote_itself(secret, shared_folder):
    with allow_folder(secret / "model"):
        assert check_path(secret / "model" / "config.json")
    with pytest.raises(PlainError):
        check_path(secret / "model" / "config.json")


def test_a_run_of_two_steps_and_a_saved_model_need_nothing_outside_the_folder(
    shared_folder, tmp_path
):
    task = {
        "kind": "language-modeling",
        "text": str(shared_folder / "text.txt"),
        "context": 16,
        "tokens": 64,
    }
    calibration = {"text": str(shared_folder / "text.txt"), "context": 16, "samples": 2}
    steps = [{"technique": "magnitude"}, STEP]
    recipe = Recipe.from_dict(
        {
            "model": str(shared_folder / "model"),
            "task": task,
            "calibration": calibration,
            "steps": steps,
        }
    )
    with apply_path_limit(path_limit()):
        assert run(recipe, save=tmp_path / "saved").summary.result.size_bytes
