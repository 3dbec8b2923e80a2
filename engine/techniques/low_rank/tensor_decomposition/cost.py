"""Workload of fine-tuning after the decomposition."""

from engine.step.workload import TrainingWork
from engine.techniques.hooks import training_work
from engine.techniques.low_rank.tensor_decomposition.config import KernelDecomposition
from engine.training.trainer import EVALUATIONS


@training_work.register
def training_work_kernels(config: KernelDecomposition) -> TrainingWork:
    if not config.trains:
        return TrainingWork()
    return TrainingWork(config.recovery, config.batch, evaluations=EVALUATIONS + 1, copies=5.0)
