"""Gains of training, the short form of tests/benchmarks/training.py: on the digits model, in
seconds.
"""

import pytest

from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.model_names import BUNDLED_MODELS
from engine.results.schema.record import Scores
from tests.recipes import few_digits

STUDENT = {
    "technique": "distill",
    "blocks": 0.5,
    "start": "random",
    "steps": 100,
    "batch": 32,
    "rate": 3e-3,
}
TAUGHT = {"distill_weight": 0.9, "temperature": 4.0}
ROUNDING = {"technique": "round-to-nearest", "group_size": 32, "range": "absmax"}
QAT = {"technique": "qat", "group_size": 32, "steps": 40, "batch": 32, "learn_scales": True}
LORA = {"technique": "lora", "rank": 4, "steps": 40, "batch": 32, "rate": 3e-3}


def result(*steps: dict, **fields) -> Scores:
    recipe = {
        "model": "bundled:digits-cnn",
        "task": BUNDLED_MODELS["digits-cnn"].task.model_dump(),
        "steps": steps,
        "device": "cpu",
        "speed": False,
    }
    return run(Recipe.from_dict(recipe | fields)).summary.result


def test_a_student_with_few_labels_learns_more_from_its_teacher(tmp_path):
    """Fifty labeled pictures; the teacher also says something to those without a label."""
    few = few_digits(50, 0, tmp_path)
    alone = result(STUDENT | {"distill_weight": 0}, training=few)
    taught = result(STUDENT | TAUGHT, training=few | {"unlabelled": "bundled:digits"})
    assert taught.parameters == alone.parameters and taught.accuracy > alone.accuracy + 0.03


@pytest.mark.parametrize("bits", [2, 3])
def test_training_on_the_grid_beats_rounding_to_it(bits):
    rounded, trained = (result(config | {"bits": bits}) for config in (ROUNDING, QAT))
    assert (
        trained.size_bytes == rounded.size_bytes
        and trained.loss < 0.9 * rounded.loss
        and trained.accuracy >= rounded.accuracy
    )


@pytest.mark.parametrize(
    "base",
    [ROUNDING | {"bits": 2}, {"technique": "magnitude", "sparsity": 0.8}],
    ids=["2 bits", "80% pruned"],
)
def test_adapters_win_back_what_compression_cost(base):
    compressed, recovered = result(base), result(base, LORA)
    assert recovered.loss < 0.9 * compressed.loss and recovered.accuracy >= compressed.accuracy


def test_lottery_tickets_show_the_published_picture():
    """Down to a quarter of the weights in one round: as good as the whole network, and better
    than both controls (Frankle & Carbin 2019, figure 1).
    """
    recipe = {
        "model": "bundled:digits-cnn",
        "task": BUNDLED_MODELS["digits-cnn"].task.model_dump(),
        "device": "cpu",
        "speed": False,
    }
    found = run(
        Recipe.from_dict(
            recipe | {"steps": [{"technique": "lottery-ticket", "rounds": 1, "share": 0.75}]}
        )
    ).tables.lottery
    mean = found.groupby(["round", "variant"]).accuracy.mean()
    ticket, whole = mean[1, "winning ticket"], mean[0, "dense"]
    assert (
        ticket > whole - 0.01
        and ticket > mean[1, "other first weights"]
        and ticket > mean[1, "random mask"] + 0.005
    )
