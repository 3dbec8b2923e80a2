"""Training of whole models: fine-tuning on labels and distillation from a teacher."""

from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from engine.config.technique import WeightState, option
from engine.errors import option_name
from engine.techniques.distillation.options import ModelTraining

# students derived from the teacher; any other value is a model's name
SMALLER, SAME = "smaller", "same"


class FineTune(ModelTraining):
    keeps_storage: ClassVar[bool] = True
    list_position: ClassVar[int] = 300
    title: ClassVar[str] = "Fine-tuning"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer")
    produces: ClassVar[WeightState] = "dense"
    summary: ClassVar[str] = "Trains all weights on labels only: the baseline for distillation."
    explanation: ClassVar[str] = (
        "All weights are trained on **labeled** examples (in a text, the labels are the next "
        "tokens). After structured pruning, this lets the remaining structures compensate for the "
        "removed ones. Quality is evaluated on held-out examples during training, and the **best** "
        "state is kept."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \theta \leftarrow \theta - \eta_t \left(\frac{\hat m}{\sqrt{\hat v} + "
        r"\epsilon}"
        r" + \lambda\, \theta\right) \\[4pt]"
        r" \hat m, \hat v \text{: moments of } \nabla_\theta\, \mathrm{CE}\big(y, "
        r"\operatorname{softmax}(z_\theta(x))\big)"
        r", \qquad \lambda = 0.01 \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Repeating data that the model was trained on gains nothing, and a learning rate that is "
        "too high destroys what it knew."
    )
    paper: ClassVar[str] = (
        "[Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization "
        "(arXiv:1711.05101)](https://arxiv.org/abs/1711.05101)"
    )

    technique: Literal["fine-tune"] = "fine-tune"

    def label(self) -> str:
        return f"Fine-tuning, {self.steps} steps"


class Distill(ModelTraining):
    trains_student: ClassVar[bool] = True
    list_position: ClassVar[int] = 290
    title: ClassVar[str] = "Distillation"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense",)
    produces: ClassVar[WeightState] = "fewer"
    summary: ClassVar[str] = (
        "Trains a smaller student to match the model's predicted probabilities."
    )
    explanation: ClassVar[str] = (
        "A label tells only which answer is correct. A **teacher** also tells how likely the other "
        "answers are. Softened by a **temperature**, these probabilities show which classes or "
        "tokens resemble each other, and a smaller **student** learns more from them than from "
        "labels alone. The student can also match the teacher's hidden states (**features**) or "
        "where they are large (**attention transfer**, which is not about a transformer's "
        "attention maps). The loss is the forward KL divergence, which makes the student cover "
        "everything the teacher finds likely; MiniLLM and GKD use the reverse KL or the student's "
        "own samples instead. Black-box distillation on generated text is sequence-level "
        "distillation."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \mathcal{L} = (1-\alpha)\,\mathrm{CE}(y, p)"
        r" \\[4pt] {} + \alpha\,T^2\,\mathrm{KL}\big(p^{(T)}_{\text{teacher}} \,\|\, p^{(T)}\big)"
        r" \\[4pt]"
        r" {} + \beta\,\lVert h_{\text{teacher}} - P h \rVert^2 + "
        r"\gamma\,\mathcal{L}_{\text{attention}}"
        r" \\[4pt] p^{(T)} = \operatorname{softmax}(z / T) \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "A student much smaller than its teacher cannot match it, and it also learns the teacher's "
        "mistakes. It needs examples like those it will meet; unlabeled texts help, because the "
        "teacher labels them."
    )
    paper: ClassVar[str] = (
        "[Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network "
        "(arXiv:1503.02531)](https://arxiv.org/abs/1503.02531); students of every other block: "
        "[Sanh et al. 2019, DistilBERT (arXiv:1910.01108)](https://arxiv.org/abs/1910.01108); "
        "features: [Romero et al. 2015, FitNets "
        "(arXiv:1412.6550)](https://arxiv.org/abs/1412.6550); attention: [Zagoruyko & Komodakis "
        "2017 (arXiv:1612.03928)](https://arxiv.org/abs/1612.03928); online: [Zhang et al. 2018, "
        "Deep Mutual Learning (arXiv:1706.00384)](https://arxiv.org/abs/1706.00384); generations: "
        "[Furlanello et al. 2018 (arXiv:1805.04770)](https://arxiv.org/abs/1805.04770); two views: "
        "[Liang et al. 2021, R-Drop (arXiv:2106.14448)](https://arxiv.org/abs/2106.14448); black "
        "box: [Kim & Rush 2016 (arXiv:1606.07947)](https://arxiv.org/abs/1606.07947); reverse KL: "
        "[Gu et al. 2023, MiniLLM (arXiv:2306.08543)](https://arxiv.org/abs/2306.08543); "
        "on-policy: [Agarwal et al. 2023, GKD (arXiv:2306.13649)](https://arxiv.org/abs/2306.13649)"
    )

    technique: Literal["distill"] = "distill"
    student: str = option(
        SMALLER,
        (
            "A smaller copy of the model, a copy with the same shape, or another model for the "
            "same task: bundled:NAME, a folder, or a Hub id."
        ),
        title="Student",
        choices=(SMALLER, SAME),
        min_length=1,
        max_length=4096,
        words={SMALLER: "smaller copy of the model", SAME: "copy with the model's shape"},
    )
    blocks: float = option(
        0.5,
        "Share of the blocks that the student keeps, evenly spaced: 0.5 keeps every other block.",
        title="Blocks kept",
        ge=0.01,
        le=1,
        when={"student": [SMALLER]},
    )
    heads: float = option(
        1.0,
        "Share of the attention heads per block that the student keeps: those with the largest "
        "weights, at their original width.",
        title="Heads kept",
        ge=0.01,
        le=1,
        when={"student": [SMALLER]},
    )
    width: float = option(
        1.0,
        "Hidden size of the student as a share of the teacher's. A narrower student cannot copy "
        "weights and starts from random ones.",
        title="Hidden size",
        advanced=True,
        ge=0.05,
        le=1,
        when={"student": [SMALLER]},
    )
    student_blocks: int = option(
        0,
        "Number of blocks that the student takes from the other model, from the first. 0: all. A "
        "student without a classification head, such as distilbert-base-uncased, gets a randomly "
        "initialized one for the teacher's classes.",
        title="Student blocks",
        advanced=True,
        ge=0,
        le=1000,
        stops=(0, 1, 2, 3, 4, 6, 8, 12),
        unless={"student": [SMALLER, SAME]},
    )
    student_heads: int = option(
        0,
        "Number of attention heads of the other model. 0: unchanged. The total width stays the "
        "same, so this alone saves nothing.",
        title="Student heads",
        advanced=True,
        ge=0,
        le=1000,
        stops=(0, 2, 4, 6, 8, 12, 16),
        unless={"student": [SMALLER, SAME]},
    )
    start: Literal["teacher", "random"] = option(
        "teacher",
        "The student's initial weights: the teacher's, for the blocks and heads it keeps, or "
        "random ones.",
        title="Initial weights",
        advanced=True,
        when={"student": [SMALLER, SAME]},
        words={"teacher": "the teacher's weights", "random": "random weights"},
    )
    setting: Literal["offline", "online", "self", "several", "black-box", "adversarial"] = option(
        "offline",
        "Offline: the teacher is fixed. Online: both models learn, from labels and from each "
        "other. Self: each generation teaches the next, or one student learns to agree with "
        "itself. Several: further models are teachers too. Black box: the student sees only the "
        "teacher's text or answers, not its probabilities. Adversarial: a discriminator learns to "
        "tell student from teacher, and the student learns to fool it.",
        title="Setting",
        words={
            "offline": "offline (fixed teacher)",
            "online": "online (mutual learning)",
            "self": "self-distillation",
            "several": "several teachers",
            "black-box": "black box (generated text)",
            "adversarial": "adversarial (discriminator)",
        },
    )
    distill_weight: float = option(
        0.5,
        "Weight α of the teacher's predictions (or of the agreement of two views) in the loss: 0 "
        "uses labels only, 1 the teacher only.",
        title="Teacher weight",
        ge=0,
        le=1,
        when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )
    temperature: float = option(
        2.0,
        "Temperature T, which softens the predictions of both models so that small probabilities "
        "contribute to the loss.",
        title="Temperature",
        ge=0.1,
        le=20,
        when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )
    features: Literal["none", "mse", "cosine"] = option(
        "none",
        "Feature loss between the hidden states of student and teacher: squared difference or "
        "cosine distance. If the widths differ, a learned projection that is not part of the "
        "student connects them.",
        title="Feature loss",
        advanced=True,
        words={
            "none": "none",
            "mse": "squared difference (MSE)",
            "cosine": "cosine distance",
        },
        when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )
    feature_weight: float = option(
        1.0,
        "Weight β of the feature loss.",
        title="Feature weight",
        advanced=True,
        ge=0,
        le=1000,
        when={"features": ["mse", "cosine"]},
        stops=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 100),
    )
    feature_blocks: str = option(
        "each",
        "Student blocks in the feature loss, each compared with the teacher's block at the same "
        "relative depth: each, last, or block numbers from 1, separated by commas, such as 1,3.",
        title="Feature blocks",
        advanced=True,
        when={"features": ["mse", "cosine"]},
        choices=("each", "last"),
        min_length=1,
        max_length=1000,
        words={"each": "each block", "last": "last block"},
    )
    attention_weight: float = option(
        0.0,
        "Weight γ of the attention-transfer loss, which matches where student and teacher "
        "activations are large. 0 turns it off.",
        title="Attention-transfer weight",
        advanced=True,
        ge=0,
        le=1000,
        stops=(0, 0.1, 1, 10, 100, 1000),
        when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )
    teachers: str = option(
        "",
        "Further teachers, separated by commas: bundled:NAME, folders or Hub ids for the same "
        "task.",
        title="Further teachers",
        max_length=4096,
        when={"setting": ["several"]},
    )
    together: Literal["mean", "confidence"] = option(
        "mean",
        "How the teachers' probabilities are combined: their mean, or weighted by each teacher's "
        "confidence in its first choice.",
        title="Teacher combination",
        advanced=True,
        when={"setting": ["several"]},
        words={"mean": "mean", "confidence": "weighted by confidence"},
    )
    views: Literal["generations", "two-views"] = option(
        "generations",
        "Generations: each student teaches the next. Two views: one student learns the labels and "
        "to agree with itself on two views of each example (R-Drop), which differ by dropout. In "
        "models without dropout, one view has a tenth of the tokens masked, or the image shifted "
        "by a pixel.",
        title="Self-distillation",
        when={"setting": ["self"]},
        words={"generations": "generations", "two-views": "two views (R-Drop)"},
    )
    generations: int = option(
        2,
        "Number of students, each taught by the one before.",
        title="Generations",
        ge=1,
        le=10,
        when={"setting": ["self"], "views": ["generations"]},
    )
    prompt: int = option(
        16,
        "Tokens of training text that prompt a language model.",
        title="Prompt length (tokens)",
        advanced=True,
        ge=1,
        le=4096,
        when={"setting": ["black-box"]},
        stops=(4, 8, 16, 32, 64, 128),
    )
    asks: Literal["continuations", "instructions", "few-shot", "reasoning"] = option(
        "continuations",
        "What a language model is prompted for: continuations of a text, answers to an "
        "instruction about it, continuations after two examples, or step-by-step reasoning. A "
        "model without instruction tuning treats instructions as ordinary text.",
        title="Prompt type",
        when={"setting": ["black-box"]},
        words={
            "continuations": "continuations",
            "instructions": "answers to instructions",
            "few-shot": "continuations after examples (few-shot)",
            "reasoning": "step-by-step reasoning",
        },
    )
    written: int = option(
        256,
        "Number of teacher continuations to train on. For classifiers, how many answers to list.",
        title="Continuations",
        advanced=True,
        ge=4,
        le=100_000,
        when={"setting": ["black-box"]},
        stops=(64, 128, 256, 512, 1024, 4096),
    )
    adversarial_weight: float = option(
        0.1,
        "Weight of the loss for fooling the discriminator.",
        title="Adversarial weight",
        advanced=True,
        ge=0,
        le=100,
        when={"setting": ["adversarial"]},
        stops=(0.01, 0.03, 0.1, 0.3, 1, 3, 10),
    )

    @field_validator("feature_blocks", mode="before")
    @classmethod
    def feature_blocks_as_text(cls, given: Any) -> Any:
        return str(given) if isinstance(given, int) else given

    @field_validator("feature_blocks")
    @classmethod
    def check_feature_blocks(cls, given: str) -> str:
        if given in ("each", "last") or all(
            number.strip().isdecimal() and int(number) for number in given.split(",")
        ):
            return given
        raise ValueError(
            f"{given[:80]!r} is not a list of blocks; give each, last, or numbers of the "
            "student's blocks from 1, such as 1,3"
        )

    @model_validator(mode="after")
    def check_width_and_heads(self) -> Self:
        if self.student == SMALLER and self.width < 1 and self.heads < 1:
            raise ValueError(
                f"{option_name(self, 'width')} of {self.width:g} already removes heads, whose own "
                f"width stays the same; set {option_name(self, 'heads')} to 1, or the width to 1"
            )
        return self

    @model_validator(mode="after")
    def check_two_views(self) -> Self:
        if self.uses_two_views and (self.features != "none" or self.attention_weight):
            raise ValueError(
                "two views have no teacher to compare hidden states with; set "
                f"{option_name(self, 'features')} to none and "
                f"{option_name(self, 'attention_weight')} to 0"
            )
        return self

    @property
    def uses_two_views(self) -> bool:
        """True if the student is trained on its own second view instead of a teacher."""
        return self.setting == "self" and self.views == "two-views"

    @property
    def compared_blocks(self) -> tuple[int, ...]:
        """Numbers of the student's compared blocks, counted from 1; empty for "each" or "last"."""
        return (
            ()
            if self.feature_blocks in ("each", "last")
            else tuple(sorted({int(number) for number in self.feature_blocks.split(",")}))
        )

    @property
    def further_teachers(self) -> tuple[str, ...]:
        """Names of the further teachers."""
        return (
            tuple(name.strip() for name in self.teachers.split(",") if name.strip())
            if self.setting == "several"
            else ()
        )

    @property
    def models(self) -> tuple[str, ...]:
        return (
            *(() if self.student in (SMALLER, SAME) else (self.student,)),
            *self.further_teachers,
        )

    def label(self) -> str:
        sizes = {"blocks": self.blocks, "heads": self.heads, "width": self.width}
        smaller = (
            ", ".join(f"{100 * share:.3g}% {name}" for name, share in sizes.items() if share < 1)
            or "all blocks"
        )
        blocks = f", {self.student_blocks} blocks" if self.student_blocks else ""
        student = {SMALLER: smaller, SAME: "same shape"}.get(
            self.student, " ".join(self.student.rpartition("/")[2].split())[:30] + blocks
        )
        setting = "two views" if self.uses_two_views else self.setting
        suffix = {"offline": "", "black-box": ", black box", "several": ", several teachers"}
        return f"Distilled to {student}{suffix.get(self.setting, f', {setting}')}"
