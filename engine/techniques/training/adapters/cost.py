"""Workload of training adapters."""

from dataclasses import replace

from engine.step.workload import TrainingWork
from engine.techniques.hooks import training_work
from engine.techniques.training.adapters.config import Adapters
from engine.techniques.training.cost import training_work_aware


@training_work.register
def training_work_adapters(config: Adapters) -> TrainingWork:
    """The base weights are frozen."""
    return replace(training_work_aware(config), copies=1.5)
