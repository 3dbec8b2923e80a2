"""A training that was killed goes on with the curve that it would have had, whatever technique
trains, and with everything that learned beside it.
"""

from typing import get_args

import pandas as pd
import pytest

from engine.events import ProgressEvent, Stage
from engine.pipeline.run import run
from engine.techniques.training.mixed_precision_training.config import Variant
from tests.cases import for_each
from tests.recipes import recipe_for

DISTILL = {"technique": "distill", "steps": 20, "batch": 4, "rate": 1e-2}
AWARE = {"steps": 8, "batch": 4, "rate": 1e-2, "look_every": 2}
GRADUAL = {"technique": "gradual", "steps": 8, "prune_every": 2, "batch": 4, "rate": 1e-2}
PRUNED = {"technique": "magnitude"}
TRAININGS = {
    "distill": ("bert", [DISTILL | {"features": "mse", "width": 0.5}]),
    "distill, asked beforehand": ("bert", [DISTILL]),
    "distill, pictures": ("resnet", [DISTILL | {"features": "mse", "width": 0.5}]),
    "online": ("resnet", [DISTILL | {"setting": "online"}]),
    "adversarial": ("bert", [DISTILL | {"setting": "adversarial"}]),
    "fine-tune": ("resnet", [DISTILL | {"technique": "fine-tune"}]),
    "qat": (
        "llama-tied",
        [
            AWARE
            | {
                "technique": "qat",
                "learn_scales": True,
                "activation_bits": 8,
                "distill_weight": 0.5,
                "pull": 0.1,
            }
        ],
    ),
    "bitnet": ("bert", [AWARE | {"technique": "bitnet", "start": "random"}]),
    "lora": ("bert", [PRUNED, AWARE | {"technique": "lora", "rank": 2, "dropout": 0.2}]),
    "lora, merged": ("bert", [PRUNED, AWARE | {"technique": "lora", "rank": 2, "merge": True}]),
    "qlora": ("bert", [AWARE | {"technique": "qlora", "rank": 2}]),
    "recovery": ("resnet", [{"technique": "tucker", "recovery": 20, "batch": 4}]),
    "gradual": ("resnet", [GRADUAL | {"floor": 0.01}]),
    "gradual, regrowing": (
        "bert",
        [GRADUAL | {"regrow": True, "distill_weight": 0.5, "target_mb": 0.19}],
    ),
    "gradual, gated": ("llama", [GRADUAL | {"regularizer": "l0", "strength": 1e-4}]),
}


class Killed(BaseException):
    """Nothing catches it: as if the process had ended."""


def killing(step: int, at: Stage = "training"):
    def report(event: ProgressEvent) -> None:
        if event.stage == at and event.done == step:
            raise Killed

    return report


def curve_of(outcome) -> pd.DataFrame:
    """All that does not depend on how fast the machine is."""
    curves = outcome.tables.schedule if outcome.tables.curves.empty else outcome.tables.curves
    return (
        curves[curves["name"] != "examples per second"].reset_index(drop=True)
        if "name" in curves
        else curves
    )


@for_each("training", TRAININGS)
def test_a_killed_training_resumes_with_the_same_curve(training, folders, tmp_path):
    architecture, steps = TRAININGS[training]
    recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", *steps)
    whole = run(recipe)
    total_steps = int(curve_of(whole).step.max())
    with pytest.raises(Killed):
        run(recipe, report=killing(total_steps * 5 // 8))
    again = run(recipe)
    assert any(
        f"{total_steps // 2} of its {total_steps} training steps were done by an earlier run"
        in note
        for note in again.summary.notes
    )
    pd.testing.assert_frame_equal(curve_of(whole), curve_of(again))
    assert again.summary.result == whole.summary.result


@pytest.mark.parametrize("keep", ["bfloat16 weights", "float16 with loss scaling"])
def test_a_killed_comparison_of_precisions_resumes_at_the_unfinished_training(
    keep, folders, tmp_path
):
    recipe = recipe_for(
        "bert",
        folders["bert"],
        tmp_path / "data",
        AWARE | {"technique": "mixed-precision-training", "keep": keep},
    )
    whole, told = run(recipe), []
    done = get_args(Variant).index(keep) + 1
    with pytest.raises(Killed):
        run(recipe, report=killing(done * 8 + 3) if done < 5 else killing(0, "compressing"))
    again = run(
        recipe, report=lambda event: told.append(event.done) if event.stage == "training" else None
    )
    assert any(
        f"{done} of its 5 trainings were done by an earlier run" in note
        for note in again.summary.notes
    )
    assert told == list(range(done * 8 + 1, 41))
    pd.testing.assert_frame_equal(curve_of(whole), curve_of(again))
    assert again.summary.result == whole.summary.result


@for_each("done", range(1, 8))
def test_a_killed_lottery_resumes_at_the_first_untrained_network(done, folders, tmp_path):
    lottery = {
        "technique": "lottery-ticket",
        "rounds": 1,
        "share": 0.5,
        "steps": 4,
        "rewind_step": 1,
        "seeds": 2,
        "batch": 4,
        "rate": 1e-2,
    }
    recipe = recipe_for("resnet", folders["resnet"], tmp_path / "data", lottery)
    whole = run(recipe)
    with pytest.raises(Killed):
        run(recipe, report=killing(done * 4 + 3))
    told = []
    again = run(
        recipe, report=lambda event: told.append(event.done) if event.stage == "training" else None
    )
    assert any(
        f"{done} of its 8 networks were trained by an earlier run" in note
        for note in again.summary.notes
    )
    assert min(told) > done * 4
    pd.testing.assert_frame_equal(whole.tables.lottery, again.tables.lottery)
    assert again.summary.result == whole.summary.result
