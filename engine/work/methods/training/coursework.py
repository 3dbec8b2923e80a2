"""What a technique's options and a recipe's training make together: examples, and a course over them."""

import math

import torch

from engine.catalog.aware import Aware
from engine.catalog.distillation import Learning
from engine.work.bench import Bench
from engine.work.opened import compute_place, multiplies_bfloat16
from engine.work.training import Course, Lessons, lessons_of


def coursework(how: Learning | Aware, bench: Bench) -> tuple[Lessons, Course]:
    """As many examples as the steps take, or all of them where epochs are counted."""
    recipe = bench.recipe
    epochs = recipe.training.epochs if recipe.training else None
    lessons = lessons_of(recipe, bench.folder, None if epochs else how.steps * how.batch)
    steps = how.steps if epochs is None else max(1, math.ceil(epochs * len(lessons.train) / how.batch))
    paged = isinstance(how, Aware) and how.pages
    return lessons, Course(steps, how.rate, how.batch, recipe.seed, parts=min(how.parts, how.batch), paged=paged, half=in_half(how, bench))


def in_half(how: Learning | Aware, bench: Bench) -> bool:
    """Whether products are bfloat16 while it learns; said where that was asked for and this processor has none."""
    device, compute = compute_place(bench.recipe)
    if how.products != "bfloat16":
        return how.products == "auto" and device.type == "cuda" and compute == torch.bfloat16
    if not multiplies_bfloat16(device):
        bench.notes.append("This processor does not multiply bfloat16 any quicker, so training had its products in float32.")
    return multiplies_bfloat16(device)
