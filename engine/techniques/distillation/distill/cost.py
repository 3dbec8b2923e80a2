"""Workload of distillation; fine-tuning has the default one."""

from engine.step.workload import GRADIENT_PASSES, TrainingWork
from engine.techniques.distillation.distill.config import SMALLER, Distill
from engine.techniques.hooks import training_work
from engine.training.trainer import EVALUATIONS


@training_work.register
def training_work_distill(config: Distill) -> TrainingWork:
    """A student is assumed to have a share of its teacher's parameters, quadratic in its width. The
    teacher runs in every step if hidden states are compared, and otherwise once for each example.
    """
    share = config.blocks * config.width**2 if config.student == SMALLER else 1.0
    if config.uses_two_views:
        return TrainingWork(
            config.steps,
            config.batch,
            2 * GRADIENT_PASSES * share,
            evaluations=EVALUATIONS + 1,
            copies=5.0 * share + 1,
        )
    online, generations = config.setting == "online", 1
    if config.setting == "self":
        generations = config.generations
    teachers = 1 + len(config.further_teachers)
    every_step = config.features != "none" or config.attention_weight > 0
    return TrainingWork(
        generations * config.steps,
        config.batch,
        GRADIENT_PASSES * (share + 1) + 1 + share
        if online
        else GRADIENT_PASSES * share + teachers * every_step,
        0.0 if every_step or online else float(teachers),
        evaluations=generations * (EVALUATIONS + 1),
        copies=5.0 * share + 1 + 4 * online,
    )
