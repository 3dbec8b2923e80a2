"""The experiment on training in short number formats."""

from typing import ClassVar, Literal, get_args

from engine.catalog.courses import batch_option, rate_option
from engine.catalog.technique import Family, Made, Technique, option

Variant = Literal["float32", "bfloat16", "float16", "float16 with loss scaling", "bfloat16 weights"]


class MixedPrecisionTraining(Technique):
    title: ClassVar[str] = "Mixed-precision training"
    family: ClassVar[Family] = "training"
    kind: ClassVar[str] = "Experiment"
    trains: ClassVar[bool] = True
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer")
    leaves: ClassVar[Made] = "dense"
    summary: ClassVar[str] = "The same training in five precisions: what 16 bits save, what they lose, and what loss scaling brings back."
    idea: ClassVar[str] = (
        "Products in 16 bits take half the memory and, on hardware made for it, a fraction of the time. Two things go wrong. In **float16** small "
        "slopes fall below its least number and become zero (**underflow**): the loss is multiplied by a large number before the backward pass and "
        "the slopes divided by it afterwards (**loss scaling**). And a small step added to a 16-bit weight is rounded away: **master weights** stay "
        "in float32. bfloat16 has float32's reach, so nothing underflows, but only three digits. All five train from the same weights on the same "
        "examples; slopes that only 16 bits make zero are counted beside float32's."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} g = \tfrac1S\, \nabla_w\!\left(S \cdot \mathcal{L}_{16}(w_{16})\right), \qquad w_{16} = \mathrm{half}(w_{32}) \\[4pt]"
        r" w_{32} \leftarrow w_{32} - \eta\, g, \qquad S \leftarrow S/2 \text{ where } g \text{ is not finite} \end{gathered}"
    )
    fails: ClassVar[str] = (
        "On a processor without 16-bit arithmetic, and wherever batches are small, casting costs more than shorter numbers save: compare the "
        "examples per second. Nothing becomes smaller: the weights are stored as before."
    )
    paper: ClassVar[str] = "[Micikevicius et al. 2018, Mixed Precision Training (arXiv:1710.03740)](https://arxiv.org/abs/1710.03740)"

    technique: Literal["mixed-precision-training"] = "mixed-precision-training"
    keep: Variant = option(
        "float16 with loss scaling", "Which of the trained models is the result.", title="Result", words={"bfloat16 weights": "bfloat16, weights too"}
    )
    steps: int = option(60, "Training steps of each.", title="Training steps", ge=1, le=100_000, stops=(20, 40, 60, 100, 200, 500, 1000))
    rate: float = rate_option(1e-3)
    batch: int = batch_option(8)
    look_every: int = option(
        10, "Training steps from one count of lost slopes to the next; quality is measured as often.", title="Steps between looks", advanced=True,
        ge=1, le=100_000, stops=(5, 10, 20, 50, 100, 200),
    )  # fmt: skip

    @property
    def may_change_nothing(self) -> bool:
        return self.rate == 0

    @property
    def trainings(self) -> int:
        return len(get_args(Variant))

    def label(self) -> str:
        return f"Trained in {self.keep}"
