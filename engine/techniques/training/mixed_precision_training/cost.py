"""Workload of the mixed-precision experiment."""

from engine.step.workload import TrainingWork
from engine.techniques.hooks import training_work
from engine.techniques.training.mixed_precision_training.config import MixedPrecisionTraining


@training_work.register
def training_work_mixed_precision_training(config: MixedPrecisionTraining) -> TrainingWork:
    """At most two models are in memory: the one in training and the kept one. Each evaluation
    computes gradients twice more.
    """
    return TrainingWork(
        config.trainings * (config.steps + 2 * config.steps // config.look_every),
        config.batch,
        evaluations=config.trainings * (config.steps // config.look_every + 1),
        copies=6.0,
    )
