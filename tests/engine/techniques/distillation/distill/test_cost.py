from engine.techniques.distillation.distill.config import Distill
from engine.techniques.implementations import training_work


def test_two_views_take_two_passes_with_slopes_and_ask_no_teacher():
    once, twice = (
        training_work(Distill(setting="self", student="same", views=views, generations=1))
        for views in ("generations", "two-views")
    )
    assert (
        twice.passes == 2 * once.passes
        and (twice.teacher_passes, once.teacher_passes) == (0, 1)
        and twice.steps == once.steps
    )
