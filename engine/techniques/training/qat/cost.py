"""Workload of quantization-aware training."""

from dataclasses import replace

from engine.step.workload import TrainingWork
from engine.techniques.hooks import training_work
from engine.techniques.training.cost import training_work_aware
from engine.techniques.training.qat.config import QAT, BitNet


@training_work.register(QAT)
@training_work.register(BitNet)
def training_work_qat_or_bitnet(config: QAT | BitNet) -> TrainingWork:
    """Each forward pass rounds every weight; codes and scales are kept for the backward pass."""
    usual = training_work_aware(config)
    return replace(usual, copies=usual.copies + 3, roundings=config.steps + usual.evaluations)
