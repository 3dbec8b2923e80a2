"""Options shared by techniques that train quantized models."""

from typing import Any, ClassVar, Literal

from engine.config.technique import Family, LayerPreviews, Technique, WeightState, option
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.scale_options import UniformGrid
from engine.techniques.training_options import (
    accumulation_option,
    batch_option,
    distill_weight_option,
    patience_option,
    precision_option,
    rate_option,
    temperature_option,
)

WEIGHTS: tuple[WeightState, ...] = ("dense", "fewer", "zeros")


INPUT_BITS: dict[str, Any] = {
    "title": "Activation bits",
    "ge": 0,
    "le": 8,
    "stops": (0, 4, 5, 6, 7, 8),
    "description": "Bits of each layer's inputs. 0: inputs are not quantized.",
}


RANGE: dict[str, Any] = {
    "title": "Activation range",
    "advanced": True,
    "description": "Range of quantized activations. Dynamic: computed for each token (each "
    "image), centered "
    "on zero. Static: fixed for each layer, with a zero point, by an observer on calibration "
    "data of the unquantized model; used in training and in the stored model.",
    "words": {"dynamic": "dynamic (at run time)", "static": "static (calibrated)"},
}


RANGE_OF_WEIGHTS: dict[str, Any] = {
    "title": "Clipping range",
    "advanced": True,
    "words": UniformGrid.model_fields["range"].json_schema_extra["words"],
    "description": "How far the grid extends, recomputed in every forward pass. The largest "
    "weight is "
    "fastest, and training reduces outliers automatically. Searching for the least squared error "
    "takes forty times as long.",
}


OBSERVER: dict[str, Any] = {
    "title": "Observer",
    "advanced": True,
    "when": {"activation_range": ["static"]},
    "description": "How the range is estimated from calibration data.",
    "words": Activations.model_fields["observer"].json_schema_extra["words"],
}


class CompressionAwareTraining(Technique):
    """Options shared by techniques that train a model for the form in which it is stored."""

    family: ClassVar[Family] = "training"
    trains: ClassVar[bool] = True
    layer_previews: ClassVar[LayerPreviews] = "last-step"
    counts_epochs: ClassVar[bool] = True

    steps: int = option(
        200,
        "Number of training steps, unless the recipe's training sets epochs.",
        title="Training steps",
        ge=1,
        le=100_000,
        stops=(20, 50, 100, 200, 300, 500, 1000, 2000, 5000),
    )
    rate: float = rate_option(1e-3)
    batch: int = batch_option(8)
    parts: int = accumulation_option()
    patience: int = patience_option(evaluations="")
    products: Literal["auto", "float32", "bfloat16"] = precision_option("float32")
    look_every: int = option(
        20,
        "Training steps between evaluations on held-out examples. The best state, including the "
        "initial one, is stored.",
        title="Evaluation interval",
        advanced=True,
        ge=1,
        le=100_000,
        stops=(5, 10, 20, 50, 100, 200),
    )
    distill_weight: float = distill_weight_option()
    temperature: float = temperature_option()

    @property
    def uses_paged_optimizer(self) -> bool:
        """True if optimizer state moves to main memory when GPU memory runs out."""
        return False
