"""Workload of training a model in its stored form."""

from engine.step.workload import GRADIENT_PASSES, TrainingWork
from engine.techniques.hooks import training_work
from engine.techniques.training.options import CompressionAwareTraining


@training_work.register
def training_work_aware(config: CompressionAwareTraining) -> TrainingWork:
    """The best state so far is also in memory."""
    return TrainingWork(
        config.steps,
        config.batch,
        GRADIENT_PASSES + (config.distill_weight > 0),
        evaluations=config.steps // config.look_every + 2,
        copies=5.0,
    )
