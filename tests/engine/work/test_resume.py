"""A training that was killed goes on with the curve that it would have had, whatever technique trains, and with everything that learnt beside it."""

import pandas as pd
import pytest

from engine.work.run import run
from tests.recipes import recipe_for

DISTILL = {"technique": "distill", "steps": 20, "batch": 4, "rate": 1e-2}
AWARE = {"steps": 8, "batch": 4, "rate": 1e-2, "look_every": 2}
PRUNED = {"technique": "magnitude"}
GRADUAL = {"technique": "gradual", "steps": 8, "batch": 4, "prune_every": 1, "sparsity": 0.4}
TRAININGS = {
    "distill": ("bert", [DISTILL | {"features": "mse", "width": 0.5}]),
    "distill, asked beforehand": ("bert", [DISTILL]),
    "distill, pictures": ("resnet", [DISTILL | {"features": "mse", "width": 0.5}]),
    "online": ("resnet", [DISTILL | {"setting": "online"}]),
    "adversarial": ("bert", [DISTILL | {"setting": "adversarial"}]),
    "fine-tune": ("resnet", [DISTILL | {"technique": "fine-tune"}]),
    "qat": ("llama-tied", [AWARE | {"technique": "qat", "learn_scales": True, "activation_bits": 8, "distill_weight": 0.5, "pull": 0.1}]),
    "bitnet": ("bert", [AWARE | {"technique": "bitnet", "start": "random"}]),
    "lora": ("bert", [PRUNED, AWARE | {"technique": "lora", "rank": 2, "dropout": 0.2}]),
    "lora, merged": ("bert", [PRUNED, AWARE | {"technique": "lora", "rank": 2, "merge": True}]),
    "qlora": ("bert", [AWARE | {"technique": "qlora", "rank": 2}]),
    "gradual": ("resnet", [GRADUAL]),
    "gradual, what was cut may come back": ("bert", [GRADUAL | {"regrow": True, "distill_weight": 0.5}]),
    "gradual, gates and a floor": ("resnet", [GRADUAL | {"regularizer": "l0", "floor": 0.01}]),
    "recovery": ("resnet", [{"technique": "tucker", "recovery": 20, "batch": 4}]),
}


class Killed(BaseException):
    """Nothing catches it: as if the process had ended."""


def killing(step: int):
    def report(stage: str, done: int, total: int) -> None:
        if "loss" in stage and done == step:
            raise Killed

    return report


def at(words: str):
    def report(stage: str, done: int, total: int) -> None:
        if words in stage:
            raise Killed

    return report


def curve_of(outcome) -> pd.DataFrame:
    """All that does not depend on how fast the machine is."""
    curves = outcome.tables.curves
    return curves[curves["name"] != "examples per second"].reset_index(drop=True)


@pytest.mark.parametrize("training", TRAININGS)
def test_a_killed_training_goes_on_with_the_curve_that_it_would_have_had(training, folders, tmp_path):
    architecture, steps = TRAININGS[training]
    recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", *steps)
    whole = run(recipe)
    course = steps[-1].get("steps") or steps[-1]["recovery"]
    with pytest.raises(Killed):
        run(recipe, report=killing(course * 5 // 8))
    again = run(recipe)
    assert any(f"{course // 2} of its {course} training steps were done by an earlier run" in note for note in again.summary.notes)
    pd.testing.assert_frame_equal(curve_of(whole), curve_of(again))
    pd.testing.assert_frame_equal(whole.tables.schedule, again.tables.schedule)
    assert again.summary.result == whole.summary.result


@pytest.mark.parametrize("killed_in", ["random mask, round 2, seed 0", "other first weights, round 1, seed 1", "dense, round 0, seed 1"])
def test_a_killed_lottery_goes_on_with_the_first_network_that_was_not_finished(killed_in, folders, tmp_path):
    step = {"technique": "lottery-ticket", "steps": 3, "rounds": 2, "seeds": 2, "batch": 4, "rewind_step": 1, "share": 0.3}
    recipe, heard = recipe_for("resnet", folders["resnet"], tmp_path / "data", step), []
    whole = run(recipe)
    with pytest.raises(Killed):
        run(recipe, report=at(killed_in))
    again = run(recipe, report=lambda stage, *_: heard.append(stage))
    assert any("of its 14 trainings were done by an earlier run" in note for note in again.summary.notes)
    assert killed_in in next(stage for stage in heard if "round" in stage)
    pd.testing.assert_frame_equal(whole.tables.lottery, again.tables.lottery)
    assert again.summary.result == whole.summary.result


@pytest.mark.parametrize("keep", ["float32", "float16 with loss scaling", "bfloat16 weights"])
def test_the_precisions_that_were_finished_are_not_trained_again(keep, folders, tmp_path):
    recipe = recipe_for(
        "resnet", folders["resnet"], tmp_path / "data", {"technique": "mixed-precision-training", "steps": 3, "batch": 4, "keep": keep}
    )
    whole = run(recipe)
    with pytest.raises(Killed):
        run(recipe, report=at("Training in float16 with"))
    again = run(recipe)
    assert any("3 of its 5 trainings were done by an earlier run" in note for note in again.summary.notes)
    pd.testing.assert_frame_equal(curve_of(whole), curve_of(again))
    assert again.summary.result == whole.summary.result


def test_a_gradual_pruning_that_is_cancelled_keeps_what_it_has(folders, tmp_path):
    step, heard = GRADUAL | {"steps": 200, "prune_every": 2}, []
    recipe = recipe_for("resnet", folders["resnet"], tmp_path / "data", step)
    outcome = run(recipe, report=lambda stage, *_: heard.append(stage), cancelled=lambda: sum("loss" in stage for stage in heard) > 20)
    assert outcome.summary.ended_early and any(
        "Training was ended at step" in note and "% of the weights are removed" in note for note in outcome.summary.notes
    )
    assert 0 < outcome.tables.schedule.sparsity.iloc[-1] < 0.4
