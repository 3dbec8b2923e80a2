"""Workload of gradual pruning: training with an evaluation after each pruning step."""

from engine.step.workload import GRADIENT_PASSES, TrainingWork
from engine.techniques.hooks import training_work
from engine.techniques.pruning.gradual.config import Gradual


@training_work.register
def training_work_gradual(config: Gradual) -> TrainingWork:
    """Each L0 gate has four more values, and a quality floor keeps a second state."""
    intervals = config.steps // config.prune_every
    return TrainingWork(
        config.steps,
        config.batch,
        GRADIENT_PASSES + (config.distill_weight > 0),
        evaluations=intervals + (intervals if config.regrow else config.pruning_steps) + 2,
        copies=5.0 + 4 * (config.regularizer == "l0") + bool(config.floor),
    )
