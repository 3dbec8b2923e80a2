"""Examples and training configuration from a technique's options and a recipe's training data."""

import math

import torch

from engine.models.loaded_model import compute_place, multiplies_bfloat16
from engine.step.run_context import Bench
from engine.techniques.distillation.distill.config import Learning
from engine.techniques.training.options import Aware
from engine.training import Course, Lessons, lessons_of


def coursework(how: Learning | Aware, bench: Bench) -> tuple[Lessons, Course]:
    """Return as many examples as the steps use, or all of them if epochs are counted."""
    recipe = bench.recipe
    epochs = recipe.training.epochs if recipe.training else None
    lessons = lessons_of(recipe, bench.folder, None if epochs else how.steps * how.batch)
    steps = (
        how.steps if epochs is None else max(1, math.ceil(epochs * len(lessons.train) / how.batch))
    )
    paged = isinstance(how, Aware) and how.pages
    return lessons, Course(
        steps,
        how.rate,
        how.batch,
        recipe.seed,
        parts=min(how.parts, how.batch),
        paged=paged,
        half=in_half(how, bench),
    )


def in_half(how: Learning | Aware, bench: Bench) -> bool:
    """Return True if products use bfloat16 during training; adds a note if that was requested but
    the processor does not support it.
    """
    device, compute = compute_place(bench.recipe)
    if how.products != "bfloat16":
        return how.products == "auto" and device.type == "cuda" and compute == torch.bfloat16
    if not multiplies_bfloat16(device):
        bench.notes.append(
            "This processor does not multiply bfloat16 any quicker, so training had its "
            "products in float32."
        )
    return multiplies_bfloat16(device)
