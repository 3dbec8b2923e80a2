"""Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): two models learn from labels, and from each other as they are at each step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from engine.catalog.distillation import Distill, FineTune
from engine.results.tables import CurveRow
from engine.work.methods.training.students import student_of
from engine.work.methods.training.tuition import Tuition, projections
from engine.work.training import Blend, Companion, quality_of, trained
from engine.work.training.loop import optimizer_of

if TYPE_CHECKING:
    from engine.work.methods.training.distill import School


def learning_together(how: Distill, school: "School", student: nn.Module) -> None:
    """The teacher's copy takes its step on the same examples after each of the student's."""
    peer = student_of(FineTune(), school.subject, school.course.seed).model.to(school.device).requires_grad_(True)
    to_student, to_peer = Tuition.of(how, student, [peer]), Tuition.of(how.model_copy(update=ANSWERS_ALONE), peer, [student])
    beside = Peer(peer, optimizer_of(peer, school.course), school, Blend(to_peer.terms()))
    with to_student.going_on(), to_peer.going_on(), projections(to_student, school.lessons.held_out.some(slice(0, 2)), school.course.seed):
        school.train(student, Blend(to_student.terms()), beside=beside)
    judged = quality_of(peer, school.lessons.held_out)
    last = max((row.step for row in school.rows.curves), default=0)
    school.rows.curves.append(CurveRow(last, "teacher", judged.name, judged.value))


@dataclass
class Peer(Companion):
    """Learns from the student while that learns from it."""

    school: "School"
    loss: Blend
    steps: Iterator[tuple[int, float]] | None = None

    def go_on(self, step: int) -> list[CurveRow]:
        self.steps = self.steps or trained(self.model, self.school.lessons.train, self.school.course, self.loss, step - 1, self.optimizer)
        _, loss = next(self.steps)
        return [CurveRow(step, "teacher", "loss", loss)]


ANSWERS_ALONE = {"features": "none", "attention_weight": 0.0}  # a teacher's states need not become the student's
