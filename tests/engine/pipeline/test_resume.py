"""Runs that were cancelled or killed go on where they were, and end as if nothing had happened."""

import multiprocessing
import os

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from engine.calibration import CalibrationStream
from engine.errors import Cancelled
from engine.pipeline.run import run
from engine.results.schema.run_tables import TABLES
from engine.results.store.unfinished import (
    MAX_UNFINISHED,
    exclusive_folder,
    finished_block_count,
    remove_oldest,
    remove_unfinished,
)
from engine.runtime.settings import home
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

STEPS = {
    "gptq": {"technique": "gptq", "bits": 3, "activation_order": True, "static_groups": False},
    "awq": {"technique": "awq", "bits": 3, "steps": 5},
    "smoothquant": {"technique": "smoothquant"},
}
ARCHITECTURES = ("llama", "gpt2", "opt", "bert", "resnet")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "home"))


def stopping_after(blocks: int):
    """A report that cancels when so many blocks are kept."""
    return lambda: len(list((home() / "unfinished").glob("*/block-*"))) >= blocks


def looks(monkeypatch) -> list[str]:
    """The blocks whose calibration data was looked at from now on."""
    asked: list[str] = []
    for name in ("collect_stats", "run_in_step"):
        plain = getattr(CalibrationStream, name)
        monkeypatch.setattr(
            CalibrationStream,
            name,
            lambda self, block, *rest, plain=plain: (
                asked.append(block) or plain(self, block, *rest)
            ),
        )
    return asked


def same(one, other) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(
            getattr(one.tables, name), getattr(other.tables, name), check_dtype=False
        )
    assert one.summary.result == other.summary.result


@for_each("step", STEPS)
@for_each("architecture", ARCHITECTURES)
def test_a_canceled_run_resumes_with_the_same_result(architecture, step, tmp_path, monkeypatch):
    recipe = recipe_for(
        architecture, tiny(architecture, tmp_path / "model"), tmp_path / "data", STEPS[step]
    )
    whole = run(recipe, save=tmp_path / "whole")
    assert not list((home() / "unfinished").iterdir())
    with pytest.raises(Cancelled, match="run it again to resume"):
        run(recipe, cancelled=stopping_after(2))
    asked = looks(monkeypatch)
    again = run(recipe, save=tmp_path / "again")
    same(whole, again)
    for path in sorted((tmp_path / "whole").glob("*.safetensors")):
        ours, theirs = load_file(path), load_file(tmp_path / "again" / path.name)
        assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    blocks = {layer.block for layer in whole.tables.layers.itertuples() if layer.technique}
    assert len(asked) < len(blocks) and not list((home() / "unfinished").iterdir())


def killed_when_a_block_is_kept(recipe) -> None:
    done = stopping_after(2)
    run(recipe, cancelled=lambda: os._exit(9) if done() else False)


def test_a_killed_run_resumes(tmp_path, monkeypatch):
    recipe = recipe_for(
        "llama", tiny("llama", tmp_path / "model"), tmp_path / "data", STEPS["gptq"]
    )
    process = multiprocessing.get_context("spawn").Process(
        target=killed_when_a_block_is_kept, args=(recipe,)
    )
    process.start()
    process.join()
    assert process.exitcode == 9 and list((home() / "unfinished").glob("*/block-*"))
    asked = looks(monkeypatch)
    again = run(recipe)
    assert len(asked) < 2
    same(run(recipe), again)


def first_bytes(content: bytes) -> bytes:
    return content[:50]


def flip_last_bit(content: bytes) -> bytes:
    """One bit of the last weight, which stays readable."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damaged", [first_bytes, flip_last_bit])
def test_a_damaged_block_is_done_again(damaged, tmp_path):
    recipe = recipe_for("llama", tiny("llama", tmp_path / "model"), tmp_path / "data", STEPS["awq"])
    whole = run(recipe)
    with pytest.raises(Cancelled):
        run(recipe, cancelled=stopping_after(2))
    for file in (home() / "unfinished").glob("*/block-*/block.safetensors"):
        file.write_bytes(damaged(file.read_bytes()))
    same(whole, run(recipe))


def test_two_at_once_do_not_meet(tmp_path):
    recipe = recipe_for(
        "llama", tiny("llama", tmp_path / "model"), tmp_path / "data", STEPS["gptq"]
    )
    with pytest.raises(Cancelled):
        run(recipe, cancelled=stopping_after(1))
    folder = next((home() / "unfinished").iterdir())
    with exclusive_folder(folder) as is_locked:
        assert is_locked
        run(recipe)
    assert list(folder.glob("block-*"))  # the other's, untouched


def test_where_nothing_can_be_kept_the_run_is_done_all_the_same(tmp_path, monkeypatch):
    recipe = recipe_for(
        "llama", tiny("llama", tmp_path / "model"), tmp_path / "data", STEPS["gptq"]
    )
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "file"))
    assert run(recipe).summary.result.size_bytes


def test_a_run_cancelled_while_its_result_is_measured_keeps_its_blocks(tmp_path, monkeypatch):
    recipe = recipe_for(
        "llama", tiny("llama", tmp_path / "model"), tmp_path / "data", STEPS["gptq"]
    )
    stages = []
    with pytest.raises(Cancelled, match="run it again to resume"):
        run(
            recipe,
            report=lambda event: stages.append(event.stage),
            cancelled=lambda: "measuring-result" in stages,
        )
    asked, stages[:] = looks(monkeypatch), []
    again = run(recipe, report=lambda event: stages.append(event.stage))
    assert not asked and "resuming" in stages
    assert "2 of its blocks were finished by an earlier run" in again.summary.notes[0]
    assert finished_block_count(recipe.key()) == 0


def test_what_is_kept_for_one_precision_is_not_taken_up_in_another(tmp_path, monkeypatch):
    recipe = recipe_for(
        "llama", tiny("llama", tmp_path / "model"), tmp_path / "data", STEPS["gptq"]
    )
    with pytest.raises(Cancelled):
        run(recipe, cancelled=stopping_after(1))
    # another machine's
    monkeypatch.setattr("engine.pipeline.resume.calibration_dtype", lambda recipe: torch.float16)
    asked = looks(monkeypatch)
    run(recipe)
    assert len(set(asked)) == 2


def test_forgetting_spares_what_a_run_is_at(tmp_path):
    recipe = recipe_for(
        "llama", tiny("llama", tmp_path / "model"), tmp_path / "data", STEPS["gptq"]
    )
    with pytest.raises(Cancelled):
        run(recipe, cancelled=stopping_after(1))
    with exclusive_folder(next((home() / "unfinished").iterdir())):
        remove_unfinished(recipe.key())
        assert finished_block_count(recipe.key()) == 1
    remove_unfinished(recipe.key())
    assert finished_block_count(recipe.key()) == 0 and not list((home() / "unfinished").iterdir())


def test_only_the_latest_are_kept(tmp_path):
    with exclusive_folder(tmp_path / "long under way"):
        for number in range(MAX_UNFINISHED + 3):
            with exclusive_folder(tmp_path / str(number)):
                remove_oldest(tmp_path / str(number))
        left = {path.name for path in tmp_path.iterdir() if path.name.isdigit()}
        assert (
            (tmp_path / "long under way").exists()
            and len(left) <= MAX_UNFINISHED
            and str(MAX_UNFINISHED + 2) in left
        )


@pytest.mark.parametrize("first", [{"technique": "wanda"}, STEPS["gptq"]], ids=["wanda", "gptq"])
def test_a_step_that_keeps_nothing_takes_no_blocks_of_the_one_before(first, tmp_path):
    model, second = (
        tiny("llama", tmp_path / "model"),
        {"technique": "qat", "bits": 8, "steps": 1, "batch": 2, "rate": 0},
    )
    alone, both = (
        run(recipe_for("llama", model, tmp_path / "data", *steps))
        for steps in ([first], [first, second])
    )
    assert {row.technique for row in both.tables.layers.itertuples()} == {
        "",
        "qat",
    } and both.summary.result.loss != alone.summary.result.loss
    assert not any("finished by an earlier run" in note for note in both.summary.notes)
