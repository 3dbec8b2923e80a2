"""Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): two models are trained on labels and
on each other's current predictions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from engine.results.schema.tables import CurveRow
from engine.techniques.distillation.distill.config import Distill, FineTune
from engine.techniques.distillation.distill.distill_run import DistillRun
from engine.techniques.distillation.distill.distillation_loss import (
    DistillationLoss,
    attach_projections,
)
from engine.techniques.distillation.distill.students import build_student
from engine.techniques.training.vocabulary import token_count
from engine.training import AuxiliaryModel, WeightedLoss, held_out_quality, train_steps
from engine.training.loop import make_optimizer


def train_with_peer(config: Distill, run: DistillRun, student: nn.Module) -> None:
    """Copy of the teacher that is trained on the same examples after each of the
    student's steps.
    """
    peer = (
        build_student(FineTune(), run.technique_input, run.training_config.seed)
        .model.to(run.device)
        .requires_grad_(True)
    )
    tokens = token_count(run.context.folder)
    to_student, to_peer = (
        DistillationLoss.of(config, student, [peer], tokens),
        DistillationLoss.of(config.model_copy(update=LOGITS_ONLY), peer, [student], tokens),
    )
    auxiliary = Peer(
        peer, make_optimizer(peer, run.training_config), run, WeightedLoss(to_peer.terms())
    )
    with (
        to_student.hooks(),
        to_peer.hooks(),
        attach_projections(
            to_student, run.training_data.held_out.subset(slice(0, 2)), run.training_config.seed
        ),
    ):
        run.train(student, WeightedLoss(to_student.terms()), auxiliary=auxiliary)
    quality = held_out_quality(peer, run.training_data.held_out)
    last = max((row.step for row in run.tables.curves), default=0)
    run.tables.curves.append(CurveRow(last, "teacher", quality.name, quality.value))


@dataclass
class Peer(AuxiliaryModel):
    """Train the peer on the student's predictions."""

    run: DistillRun
    loss: WeightedLoss
    steps: Iterator[tuple[int, float]] | None = None

    def after_step(self, step: int) -> list[CurveRow]:
        self.steps = self.steps or train_steps(
            self.model,
            self.run.training_data.train,
            self.run.training_config,
            self.loss,
            step - 1,
            self.optimizer,
        )
        _, loss = next(self.steps)
        return [CurveRow(step, "teacher", "loss", loss)]


# hidden states of the teacher need not match the student's
LOGITS_ONLY = {"features": "none", "attention_weight": 0.0}
