"""Experiment: training in 16-bit number formats."""

from typing import ClassVar, Literal, get_args

from engine.config.technique import Family, LayerPreviews, Technique, WeightState, option
from engine.techniques.training_options import batch_option, rate_option

Variant = Literal["float32", "bfloat16", "float16", "float16 with loss scaling", "bfloat16 weights"]


class MixedPrecisionTraining(Technique):
    list_position: ClassVar[int] = 350
    title: ClassVar[str] = "Mixed-precision training"
    family: ClassVar[Family] = "training"
    kind: ClassVar[str] = "Experiment"
    trains: ClassVar[bool] = True
    layer_previews: ClassVar[LayerPreviews] = "last-step"
    curve_panels: ClassVar[tuple[str, ...]] = ("LOST_GRADIENTS", "THROUGHPUT")
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer")
    produces: ClassVar[WeightState] = "dense"
    summary: ClassVar[str] = (
        "Trains in five precisions: what 16 bits save, what they lose, and what loss scaling "
        "recovers."
    )
    explanation: ClassVar[str] = (
        "16-bit matrix products halve the memory of activations and are several times faster on "
        "hardware with support for them. Two problems arise. In **float16**, small gradients "
        "underflow to zero: **loss scaling** multiplies the loss by a large number S before the "
        "backward pass and divides the gradients by it afterwards. If a gradient is not finite, "
        "the step is skipped and S is halved; after 2,000 good steps S is doubled. And small "
        "updates to a 16-bit weight are rounded away: **master weights** stay in float32, so the "
        "weights take more memory. bfloat16 has float32's range, so almost nothing underflows, but "
        "only two to three decimal digits. All five runs use the same initial weights and "
        "examples; gradients that are zero only in 16 bits are counted against float32."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} g = \tfrac1S\, \nabla_w\!\left(S \cdot "
        r"\mathcal{L}_{16}(w_{16})\right), \qquad w_{16} = \mathrm{half}(w_{32}) \\[4pt]"
        r" \text{if } g \text{ is finite: } w_{32} \leftarrow w_{32} - \eta\, g \\[4pt]"
        r" \text{otherwise: } S \leftarrow S/2, \text{ no update} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "On processors without 16-bit arithmetic, and with small batches, casting costs more than "
        "it saves; compare the examples per second. The model does not become smaller: weights are "
        "stored as before."
    )
    paper: ClassVar[str] = (
        "[Micikevicius et al. 2018, Mixed Precision Training "
        "(arXiv:1710.03740)](https://arxiv.org/abs/1710.03740)"
    )

    technique: Literal["mixed-precision-training"] = "mixed-precision-training"
    keep: Variant = option(
        "float16 with loss scaling",
        "Trained model to keep as the result.",
        title="Result",
        words={"bfloat16 weights": "bfloat16, weights too"},
    )
    steps: int = option(
        60,
        "Training steps per precision.",
        title="Training steps",
        ge=1,
        le=100_000,
        stops=(20, 40, 60, 100, 200, 500, 1000),
    )
    rate: float = rate_option(1e-3)
    batch: int = batch_option(8)
    look_every: int = option(
        10,
        "Training steps between counts of underflowed gradients; quality is evaluated at the same "
        "interval.",
        title="Evaluation interval",
        advanced=True,
        ge=1,
        le=100_000,
        stops=(5, 10, 20, 50, 100, 200),
    )

    @property
    def may_change_nothing(self) -> bool:
        return self.rate == 0

    @property
    def trainings(self) -> int:
        """Number of models trained."""
        return len(get_args(Variant))

    def label(self) -> str:
        return f"Trained in {self.keep}"
