"""Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): two models learn from labels, and from each other as they are at each step."""

from typing import TYPE_CHECKING

from torch import nn

from engine.catalog.distillation import Distill, FineTune
from engine.results.tables import CurveRow
from engine.work.methods.training.students import student_of
from engine.work.methods.training.tuition import Tuition, projections
from engine.work.training import Blend, quality_of, trained

if TYPE_CHECKING:
    from engine.work.methods.training.distill import School


def learning_together(how: Distill, school: "School", student: nn.Module) -> None:
    """The teacher's copy takes its step on the same examples after each of the student's."""
    peer = student_of(FineTune(), school.subject, school.course.seed).model.to(school.device).requires_grad_(True)
    to_student, to_peer = Tuition.of(how, student, [peer]), Tuition.of(how.model_copy(update=ANSWERS_ALONE), peer, [student])
    with to_student.going_on(), to_peer.going_on(), projections(to_student, school.lessons.held_out.some(slice(0, 2)), school.course.seed):
        steps = trained(peer, school.lessons.train, school.course, Blend(to_peer.terms()))

        def step() -> None:
            number, loss = next(steps)
            school.rows.curves.append(CurveRow(number, "teacher", "loss", loss))

        school.train(student, Blend(to_student.terms()), alone=False, after_step=step)
    judged = quality_of(peer, school.lessons.held_out)
    last = max((row.step for row in school.rows.curves), default=0)
    school.rows.curves.append(CurveRow(last, "teacher", judged.name, judged.value))


ANSWERS_ALONE = {"features": "none", "attention_weight": 0.0}  # a teacher's states need not become the student's
