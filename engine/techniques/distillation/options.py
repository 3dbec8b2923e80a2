"""Options shared by techniques that train a whole model."""

from typing import ClassVar, Literal

from engine.config.technique import Family, LayerPreviews, Technique, option
from engine.techniques.training_options import (
    accumulation_option,
    batch_option,
    patience_option,
    precision_option,
    rate_option,
)


class ModelTraining(Technique):
    """Options shared by methods that train a whole model."""

    family: ClassVar[Family] = "distillation"
    kind: ClassVar[str] = "Students"
    trains: ClassVar[bool] = True
    layer_previews: ClassVar[LayerPreviews] = "none"
    counts_epochs: ClassVar[bool] = True

    steps: int = option(
        200,
        "Number of training steps, unless the recipe's training sets epochs.",
        title="Training steps",
        ge=1,
        le=1_000_000,
        stops=(50, 100, 200, 300, 500, 1000, 2000, 5000),
    )
    rate: float = rate_option(5e-4)
    batch: int = batch_option(16)
    parts: int = accumulation_option()
    patience: int = patience_option()
    products: Literal["auto", "float32", "bfloat16"] = precision_option()
    values: Literal["model", "float32", "bfloat16", "float16"] = option(
        "model",
        "Number format of the stored weights: that of the model, or another.",
        title="Weight precision",
        advanced=True,
        words={"model": "same as the model"},
    )
