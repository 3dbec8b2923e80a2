"""Teacher logits are computed once per example and keep their order."""

import pytest
import torch

from engine.recipe import Recipe
from engine.step.run_context import RunContext
from engine.techniques.distillation.distill.distill_run import DistillRun
from engine.techniques.distillation.distill.distillation_loss import (
    DistillationLoss,
)
from engine.techniques.distillation.distill.teacher_logits import teacher_outputs
from tests.distillation import curve
from tests.training_examples import exercises


def test_teacher_logits_are_computed_once_per_example_without_changing_training(
    run_step, monkeypatch
):
    heard = []
    asked = DistillationLoss.compute_teacher_logits
    monkeypatch.setattr(
        DistillationLoss,
        "compute_teacher_logits",
        lambda self, batch, device: heard.append(len(batch)) or asked(self, batch, device),
    )
    before = curve(run_step(distill_weight=1, steps=6))
    assert sum(heard) == 7  # 24 texts, 16 of which quality is measured on, and one held out
    heard.clear()
    monkeypatch.setattr(DistillRun, "precomputes_teacher_logits", lambda self, tuition: False)
    assert before == pytest.approx(curve(run_step(distill_weight=1, steps=6)), rel=1e-4)
    assert sum(heard) == 24


def test_teacher_logits_have_the_order_of_their_examples(folders):
    texts = exercises("bert")
    texts.inputs["attention_mask"][:, 5:] = torch.arange(len(texts))[:, None] % 3 > 0
    assert torch.equal(
        teacher_outputs(RunContext(Recipe(), None), texts, lambda part: part.targets), texts.targets
    )
