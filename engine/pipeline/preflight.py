"""Checks of a recipe before heavy work starts, also used by the forecast."""

from collections.abc import Iterable

from engine.config.technique import Technique
from engine.errors import PlainError, option_name
from engine.evaluation.evaluation import check_task_kind
from engine.models.layers import Layer
from engine.models.model_source import ModelSource
from engine.recipe import Recipe
from engine.recipe.tasks import Calibration
from engine.techniques.implementations import check_models, check_recipe

MAX_CHANNELS_PER_TOKEN = 16  # maximum input channels of the widest layer per calibration token


def check_calibration_size(step: Technique, layers: Iterable[Layer], tokens: int) -> None:
    """Check that there is enough calibration data for Gram matrices.

    A Gram matrix of n tokens has at most rank n. With damping, directions without data are treated
    as in plain rounding, so few tokens are workable; with fewer than one token per 16 input
    channels almost all directions are unseen. ``tokens`` 0: images, which have many patches. Raises
    PlainError.
    """
    widest = max(
        (layer for layer in layers if layer.kind in ("linear", "conv1d")),
        key=lambda layer: layer.matrix_shape[1],
        default=None,
    )
    if step.needs != "gram" or not tokens or widest is None:
        return
    width = widest.matrix_shape[1]
    if tokens * MAX_CHANNELS_PER_TOKEN < width:
        raise PlainError(
            f"The calibration data gives {tokens:,} tokens, too few for {step.title}: "
            f"{widest.name} has {width:,} input channels and needs at least "
            f"{-(-width // MAX_CHANNELS_PER_TOKEN):,} (one for {MAX_CHANNELS_PER_TOKEN} channels). "
            f"Give a longer {option_name(Calibration, 'text')} or more "
            f"{option_name(Calibration, 'samples')}."
        )


def check_steps(recipe: Recipe, folder: ModelSource, local_only: bool = False) -> None:
    """Check every step of a recipe against the model, task and device.

    Raises PlainError for the first step that this model, task or device does not allow.
    ``local_only``: other models only where they need no download.
    """
    check_task_kind(recipe.task, folder)
    if folder.packed and recipe.steps:
        raise PlainError(
            f"{recipe.model} is already compressed; start from the original model, or leave "
            "out the steps to measure it."
        )
    for step in recipe.steps:
        check_recipe(step, recipe)
        check_models(step, folder, recipe, local_only)
