"""Defaults for a technique that implements no more than it must."""

from typing import ClassVar, Literal

from engine.config.technique import Technique
from engine.step.workload import GRADIENT_PASSES, SearchWork, TrainingWork
from engine.techniques.distillation.distill.config import FineTune
from engine.techniques.implementations import (
    equivalent_weights,
    explanation,
    forecast_notes,
    layer_operations,
    nonzero_weights,
    search_work,
    training_work,
)
from engine.techniques.previews import preview
from engine.training.trainer import EVALUATIONS


class Plain(Technique):
    technique: Literal["plain"] = "plain"


class Trained(Plain):
    trains: ClassVar[bool] = True
    steps: int = 30
    batch: int = 4


def test_a_technique_does_nothing_but_compress_layers_by_default():
    config = Plain()
    assert search_work(config, 10) == SearchWork() and training_work(config) == TrainingWork()
    assert layer_operations(config, (48, 172)) == 0 and forecast_notes(config, None) == ()
    assert equivalent_weights(config, None) is explanation(config, None) is preview(config) is None
    assert nonzero_weights(config, (48, 172)) is None


def test_training_is_counted_by_its_declared_steps_and_batch():
    work = training_work(Trained())
    assert (work.steps, work.batch, work.evaluations) == (30, 4, EVALUATIONS + 1)
    assert work.passes == GRADIENT_PASSES
    config = FineTune(steps=30, batch=4)
    assert training_work(config) == work, "fine-tuning has no workload of its own"
