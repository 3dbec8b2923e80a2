"""Examples and training configuration from a technique's options and a recipe's training data."""

import math

import torch

from engine.models.loaded_model import device_and_dtype, multiplies_bfloat16
from engine.step.run_context import RunContext
from engine.techniques.distillation.options import ModelTraining
from engine.techniques.training.options import CompressionAwareTraining
from engine.training import TrainingConfig, TrainingData, load_recipe_training_data


def load_training_setup(
    config: ModelTraining | CompressionAwareTraining, context: RunContext
) -> tuple[TrainingData, TrainingConfig]:
    """Return as many examples as the steps use, or all of them if epochs are counted."""
    recipe = context.recipe
    epochs = recipe.training.epochs if recipe.training else None
    training_data = load_recipe_training_data(
        recipe, context.folder, None if epochs else config.steps * config.batch
    )
    steps = (
        config.steps
        if epochs is None
        else max(1, math.ceil(epochs * len(training_data.train) / config.batch))
    )
    paged = isinstance(config, CompressionAwareTraining) and config.uses_paged_optimizer
    return training_data, TrainingConfig(
        steps,
        config.rate,
        config.batch,
        recipe.seed,
        parts=min(config.parts, config.batch),
        paged=paged,
        half=uses_bfloat16(config, context),
    )


def uses_bfloat16(config: ModelTraining | CompressionAwareTraining, context: RunContext) -> bool:
    """Return True if products use bfloat16 during training; adds a note if that was requested but
    the processor does not support it.
    """
    device, compute = device_and_dtype(context.recipe)
    if config.products != "bfloat16":
        return config.products == "auto" and device.type == "cuda" and compute == torch.bfloat16
    if not multiplies_bfloat16(device):
        context.notes.append(
            "This processor does not multiply bfloat16 any quicker, so training had its "
            "products in float32."
        )
    return multiplies_bfloat16(device)
