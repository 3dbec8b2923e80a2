"""Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): two models learn from labels, and
from each other as they are at each step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from engine.results.schema.tables import CurveRow
from engine.techniques.distillation.distill.config import Distill, FineTune
from engine.techniques.distillation.distill.distill_run import DistillRun
from engine.techniques.distillation.distill.distillation_loss import Tuition, projections
from engine.techniques.distillation.distill.students import student_of
from engine.techniques.training.vocabulary import token_count
from engine.training import Blend, Companion, quality_of, trained
from engine.training.loop import optimizer_of


def learning_together(how: Distill, run: DistillRun, student: nn.Module) -> None:
    """The teacher's copy takes its step on the same examples after each of the student's."""
    peer = (
        student_of(FineTune(), run.subject, run.course.seed)
        .model.to(run.device)
        .requires_grad_(True)
    )
    tokens = token_count(run.bench.folder)
    to_student, to_peer = (
        Tuition.of(how, student, [peer], tokens),
        Tuition.of(how.model_copy(update=ANSWERS_ALONE), peer, [student], tokens),
    )
    beside = Peer(peer, optimizer_of(peer, run.course), run, Blend(to_peer.terms()))
    with (
        to_student.going_on(),
        to_peer.going_on(),
        projections(to_student, run.lessons.held_out.some(slice(0, 2)), run.course.seed),
    ):
        run.train(student, Blend(to_student.terms()), beside=beside)
    judged = quality_of(peer, run.lessons.held_out)
    last = max((row.step for row in run.rows.curves), default=0)
    run.rows.curves.append(CurveRow(last, "teacher", judged.name, judged.value))


@dataclass
class Peer(Companion):
    """Learns from the student while that learns from it."""

    run: DistillRun
    loss: Blend
    steps: Iterator[tuple[int, float]] | None = None

    def go_on(self, step: int) -> list[CurveRow]:
        self.steps = self.steps or trained(
            self.model,
            self.run.lessons.train,
            self.run.course,
            self.loss,
            step - 1,
            self.optimizer,
        )
        _, loss = next(self.steps)
        return [CurveRow(step, "teacher", "loss", loss)]


# a teacher's states need not become the student's
ANSWERS_ALONE = {"features": "none", "attention_weight": 0.0}
