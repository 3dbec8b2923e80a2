"""Students that learn: from labels, and from a teacher."""

from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from engine.catalog.courses import batch_option, parts_option, patience_option, products_option, rate_option
from engine.catalog.technique import Family, Made, Technique, option

SMALLER, SAME = "smaller", "same"  # students made of the teacher; any other is a model's name


class Learning(Technique):
    """What methods that train a whole model share."""

    family: ClassVar[Family] = "distillation"
    kind: ClassVar[str] = "Students"
    trains: ClassVar[bool] = True
    counts_epochs: ClassVar[bool] = True

    steps: int = option(
        200, "Training steps, unless the recipe's training counts epochs.", title="Training steps", ge=1, le=1_000_000,
        stops=(50, 100, 200, 300, 500, 1000, 2000, 5000),
    )  # fmt: skip
    rate: float = rate_option(5e-4)
    batch: int = batch_option(16)
    parts: int = parts_option()
    patience: int = patience_option()
    products: Literal["auto", "float32", "bfloat16"] = products_option()
    values: Literal["model", "float32", "bfloat16", "float16"] = option(
        "model", "Number format in which the weights are written: the model's own, or another.", title="Weights written as", advanced=True,
        words={"model": "as the model has them"},
    )  # fmt: skip


class FineTune(Learning):
    title: ClassVar[str] = "Fine-tuning"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer")
    leaves: ClassVar[Made] = "dense"
    summary: ClassVar[str] = "Train on from the weights as they are, on labels alone: the yardstick that a teacher has to beat."
    idea: ClassVar[str] = (
        "All weights move a little in the direction in which the loss falls, step by step, on examples with **labels** (of a text: its next words). "
        "After whole structures were taken out, it lets what is left take over. Quality is looked at on the way, on examples that nothing is learnt "
        "from, and the **best** state is kept."
    )
    formula: ClassVar[str] = (
        r"\theta \leftarrow \theta - \eta_t\, \mathrm{AdamW}\!\left(\nabla_\theta\, \mathrm{CE}\big(y, "
        r"\operatorname{softmax}(z_\theta(x))\big)\right)"
    )
    fails: ClassVar[str] = (
        "A model that has learnt its training data already gains nothing from seeing it again, and a step size that is too large unlearns what it "
        "knew."
    )
    paper: ClassVar[str] = "[Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization (arXiv:1711.05101)](https://arxiv.org/abs/1711.05101)"

    technique: Literal["fine-tune"] = "fine-tune"

    def label(self) -> str:
        return f"Fine-tuning, {self.steps} steps"


class Distill(Learning):
    title: ClassVar[str] = "Distillation"
    takes: ClassVar[tuple[Made, ...]] = ("dense",)
    leaves: ClassVar[Made] = "fewer"
    summary: ClassVar[str] = "A smaller student learns to answer as the model does, its doubts included."
    idea: ClassVar[str] = (
        "A label says which answer is right. A **teacher** says more: which others it took for possible, and how nearly. Softened by a "
        "**temperature**, those small probabilities show what resembles what, and a smaller **student** learns from them what labels alone would not "
        "tell it. It may also be shown how the teacher's states look on the way (**features**), or only where they are strong (**attention**)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \mathcal{L} = (1-\alpha)\,\mathrm{CE}(y, p)"
        r" \\[4pt] {} + \alpha\,T^2\,\mathrm{KL}\big(p^{(T)}_{\text{teacher}} \,\|\, p^{(T)}\big)"
        r" \\[4pt]"
        r" {} + \beta\,\lVert h_{\text{teacher}} - P h \rVert^2 + \gamma\,\mathcal{L}_{\text{attention}}"
        r" \\[4pt] p^{(T)} = \operatorname{softmax}(z / T) \end{gathered}"
    )
    fails: ClassVar[str] = (
        "A student that is far smaller than its teacher cannot follow it, a teacher that is wrong teaches that too, and without examples like those "
        "it will meet a student learns little: texts without labels help, since the teacher answers them."
    )
    paper: ClassVar[str] = (
        "[Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network (arXiv:1503.02531)](https://arxiv.org/abs/1503.02531); students "
        "of every other block: [Sanh et al. 2019, DistilBERT (arXiv:1910.01108)](https://arxiv.org/abs/1910.01108); features: [Romero et al. 2015, "
        "FitNets (arXiv:1412.6550)](https://arxiv.org/abs/1412.6550); attention: [Zagoruyko & Komodakis 2017 "
        "(arXiv:1612.03928)](https://arxiv.org/abs/1612.03928); together: [Zhang et al. 2018, Deep Mutual Learning "
        "(arXiv:1706.00384)](https://arxiv.org/abs/1706.00384); generations: [Furlanello et al. 2018 "
        "(arXiv:1805.04770)](https://arxiv.org/abs/1805.04770); two views: [Liang et al. 2021, R-Drop "
        "(arXiv:2106.14448)](https://arxiv.org/abs/2106.14448)"
    )

    technique: Literal["distill"] = "distill"
    student: str = option(
        SMALLER, "A smaller copy of the model, one of its shape, or any other model for the same task: bundled:NAME, a folder, or a Hub id.",
        title="Student", choices=(SMALLER, SAME), min_length=1, max_length=4096,
        words={SMALLER: "a smaller copy of the model", SAME: "one of the model's shape"},
    )  # fmt: skip
    blocks: float = option(
        0.5, "Share of the blocks that the student has, evenly spaced: half is every other one.", title="Blocks kept", ge=0.01, le=1,
        when={"student": [SMALLER]},
    )  # fmt: skip
    heads: float = option(
        1.0, "Share of the attention heads of each block, those of the largest weights, each as wide as before. Fewer heads at an equal width of all "
        "together would save nothing.", title="Heads kept", ge=0.01, le=1, when={"student": [SMALLER]},
    )  # fmt: skip
    width: float = option(
        1.0, "Share of the width of everything that flows through the student. A narrower one cannot take over weights and starts at random.",
        title="Width", advanced=True, ge=0.05, le=1, when={"student": [SMALLER]},
    )  # fmt: skip
    student_blocks: int = option(
        0, "How many blocks of another model the student takes, the first ones; 0: all. A student that is a bare encoder, such as "
        "distilbert-base-uncased, gets a head for the teacher's classes, drawn at random.",
        title="Blocks of the other model", advanced=True, ge=0, le=1000, stops=(0, 1, 2, 3, 4, 6, 8, 12), unless={"student": [SMALLER, SAME]},
    )  # fmt: skip
    student_heads: int = option(
        0, "Into how many heads the other model's attention is cut; 0: as it is. The width of all together stays, so this alone saves nothing.",
        title="Heads of the other model", advanced=True, ge=0, le=1000, stops=(0, 2, 4, 6, 8, 12, 16), unless={"student": [SMALLER, SAME]},
    )  # fmt: skip
    start: Literal["teacher", "random"] = option(
        "teacher", "The student's first weights: the teacher's, of the blocks and heads it keeps, or random ones.", title="Starts from",
        advanced=True,
        when={"student": [SMALLER, SAME]}, words={"teacher": "the teacher's weights", "random": "random weights"},
    )  # fmt: skip
    setting: Literal["offline", "online", "self", "several", "black-box", "adversarial"] = option(
        "offline",
        "Offline: the teacher stays as it is. Online: both learn, from labels and from each other. Self: each generation teaches the next, or one "
        "student agrees with itself. Several: the model and others teach together. Black box: the student sees only what the teacher writes or "
        "answers, no probabilities. Adversarial: a discriminator learns to tell the student's answers from the teacher's, and the student to deceive "
        "it.",
        title="Setting",
        words={"offline": "a fixed teacher (offline)", "online": "learning together (online)", "self": "from itself (self)",
               "several": "several teachers", "black-box": "only what it writes (black box)", "adversarial": "against a discriminator (adversarial)"},
    )  # fmt: skip
    distill_weight: float = option(
        0.5, "How much the teacher's answers, or the agreement of two views, count beside the labels: 0 not at all, 1 alone. The α of the formula.",
        title="Weight of the teacher (distill_weight)", ge=0, le=1, when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )  # fmt: skip
    temperature: float = option(
        2.0, "Softens the answers of both models, so that small probabilities are learnt too. The T of the formula.", title="Temperature", ge=0.1,
        le=20,
        when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )  # fmt: skip
    features: Literal["none", "mse", "cosine"] = option(
        "none", "Whether the student's states are drawn towards the teacher's, by their squared difference or their angle. Where widths differ, a "
        "learnt "
        "projection stands between, which is not part of the student.", title="Features", advanced=True,
        words={"none": "not compared", "mse": "squared difference (MSE)", "cosine": "angle (cosine)"},
        when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )  # fmt: skip
    feature_weight: float = option(
        1.0, "What they count: the β of the formula.", title="Weight of the features", advanced=True, ge=0, le=1000,
        when={"features": ["mse", "cosine"]},
        stops=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 100),
    )  # fmt: skip
    feature_blocks: str = option(
        "each", "Which of the student's blocks are compared, each with the teacher's block at the same share of the way: each, the last, or their "
        "numbers, counted from 1 and separated by commas, such as 1,3.", title="Blocks compared", advanced=True, when={"features": ["mse", "cosine"]},
        choices=("each", "last"), min_length=1, max_length=1000, words={"each": "each of the student's", "last": "the last one"},
    )  # fmt: skip
    attention_weight: float = option(
        0.0, "What it counts where the states of each block are strong, beside the teacher's (attention transfer): the γ of the formula. 0: nothing.",
        title="Weight of attention", advanced=True, ge=0, le=1000, stops=(0, 0.1, 1, 10, 100, 1000),
        when={"setting": ["offline", "online", "self", "several", "adversarial"]},
    )  # fmt: skip
    teachers: str = option(
        "", "Further teachers beside the model, separated by commas: bundled:NAME, folders or Hub ids for the same task.", title="Further teachers",
        max_length=4096, when={"setting": ["several"]},
    )  # fmt: skip
    together: Literal["mean", "confidence"] = option(
        "mean", "How the teachers' probabilities become one: their mean, or weighted by how sure each is of its first choice.",
        title="Teachers joined by",
        advanced=True, when={"setting": ["several"]}, words={"mean": "their mean", "confidence": "how sure each is (confidence)"},
    )  # fmt: skip
    views: Literal["generations", "two-views"] = option(
        "generations", "Generations: each student teaches the next. Two views: one student learns the labels, and to agree with itself on two looks "
        "at each example (R-Drop), which dropout makes different; where a model has none, one look has a tenth of the tokens hidden, or the picture "
        "moved by a pixel.",
        title="Taught by itself", when={"setting": ["self"]},
        words={"generations": "over generations", "two-views": "two views of one input (R-Drop)"},
    )  # fmt: skip
    generations: int = option(
        2, "How many students there are, each taught by the one before.", title="Generations", ge=1, le=10,
        when={"setting": ["self"], "views": ["generations"]},
    )  # fmt: skip
    prompt: int = option(
        16, "Tokens of the training text that a language model is given to go on from.", title="Tokens of a prompt", advanced=True, ge=1, le=4096,
        when={"setting": ["black-box"]}, stops=(4, 8, 16, 32, 64, 128),
    )  # fmt: skip
    asks: Literal["continuations", "instructions", "few-shot", "reasoning"] = option(
        "continuations",
        "What a language model is asked to write: how a text goes on, an answer to an instruction about it, how it goes on after two examples of "
        "that, or reasons step by step. A model that was never trained on instructions answers them as if they were any text.",
        title="Asked for", when={"setting": ["black-box"]},
        words={"continuations": "how a text goes on", "instructions": "answers to instructions", "few-shot": "after examples (few-shot)",
               "reasoning": "reasons, step by step"},
    )  # fmt: skip
    written: int = option(
        256, "Continuations that a language model writes for its student; of a classifier's answers, so many can be read.", title="Continuations",
        advanced=True, ge=4, le=100_000, when={"setting": ["black-box"]}, stops=(64, 128, 256, 512, 1024, 4096),
    )  # fmt: skip
    adversarial_weight: float = option(
        0.1, "What deceiving the discriminator counts.", title="Weight of the discriminator", advanced=True, ge=0, le=100,
        when={"setting": ["adversarial"]}, stops=(0.01, 0.03, 0.1, 0.3, 1, 3, 10),
    )  # fmt: skip

    @field_validator("feature_blocks", mode="before")
    @classmethod
    def one_block_is_a_number(cls, given: Any) -> Any:
        return str(given) if isinstance(given, int) else given

    @field_validator("feature_blocks")
    @classmethod
    def names_blocks(cls, given: str) -> str:
        if given in ("each", "last") or all(number.strip().isdecimal() and int(number) for number in given.split(",")):
            return given
        raise ValueError(f"{given[:80]!r} names no blocks; give each, last, or the numbers of the student's blocks, counted from 1, such as 1,3")

    @model_validator(mode="after")
    def shrinks_one_way(self) -> Self:
        if self.student == SMALLER and self.width < 1 and self.heads < 1:
            raise ValueError(f"width {self.width:g} leaves fewer heads already, each as wide as before; set heads to 1, or width to 1")
        return self

    @model_validator(mode="after")
    def has_states_to_compare(self) -> Self:
        if self.looks_twice and (self.features != "none" or self.attention_weight):
            raise ValueError("two views have no teacher whose states could be compared; set features to none and attention_weight to 0")
        return self

    @property
    def looks_twice(self) -> bool:
        """Whether a student is taught by its own second look, and by no teacher."""
        return self.setting == "self" and self.views == "two-views"

    @property
    def compared_blocks(self) -> tuple[int, ...]:
        """Numbers of the student's blocks, counted from 1, where they are named; of each one, or the last, none are."""
        return () if self.feature_blocks in ("each", "last") else tuple(sorted({int(number) for number in self.feature_blocks.split(",")}))

    @property
    def further(self) -> tuple[str, ...]:
        """Teachers beside the model."""
        return tuple(name.strip() for name in self.teachers.split(",") if name.strip()) if self.setting == "several" else ()

    @property
    def models(self) -> tuple[str, ...]:
        return (*(() if self.student in (SMALLER, SAME) else (self.student,)), *self.further)

    def label(self) -> str:
        sizes = {"blocks": self.blocks, "heads": self.heads, "width": self.width}
        smaller = ", ".join(f"{100 * share:.3g} % {name}" for name, share in sizes.items() if share < 1) or "all blocks"
        blocks = f", {self.student_blocks} blocks" if self.student_blocks else ""
        who = {SMALLER: smaller, SAME: "same shape"}.get(self.student, " ".join(self.student.rpartition("/")[2].split())[:30] + blocks)
        setting = "two views" if self.looks_twice else self.setting
        how = {"offline": "", "black-box": ", black box", "several": ", several teachers"}.get(self.setting, f", {setting}")
        return f"Distilled to {who}{how}"
