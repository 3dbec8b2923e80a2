"""Pruning with training in between, and the experiment on lottery tickets."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from engine.catalog.courses import batch_option, distill_weight_option, rate_option, temperature_option
from engine.catalog.pruning import SCOPE, Magnitude, Pruning, Storage
from engine.catalog.technique import Family, Made, Technique, option

RECOVERY = 0.25  # share of the training that comes after the last cut
LAYER_OR_ALL = SCOPE | {
    "description": "Among which weights the smallest are looked for: those of one layer, or of all layers, so that some lose more than others.",
    "words": {"layer": "each layer", "global": "all layers together (global)"},
}


class Gradual(Pruning):
    title: ClassVar[str] = "Gradual pruning with training"
    kind: ClassVar[str] = "Trains in between"
    trains: ClassVar[bool] = True
    summary: ClassVar[str] = "Remove the smallest weights a few at a time, and let those that are left learn to do without them."
    idea: ClassVar[str] = (
        "Cutting all at once hurts most. Cut a little, **train** on, cut again: each time the weights that stay take over from those that went. The "
        "cubic **schedule** removes much while there is plenty to spare and little at the end. What was cut may come back (**dynamic pruning with "
        "feedback**): cut weights go on learning unseen, and the mask is drawn anew at every cut. A penalty may push weights, or gates before them, "
        "towards zero (**L1, L0**), and the original model may be the teacher (**distillation**)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} s_t = s_f\left(1 - \left(1 - \tfrac{t}{T}\right)^3\right) \\[4pt]"
        r" \mathcal{L} = (1-\alpha)\,\mathrm{CE} + \alpha\,T^2\,\mathrm{KL}(p^T_{\text{dense}} \,\|\, p^T) + \lambda\,\Omega(W) \end{gathered}"
    )
    fails: ClassVar[str] = (
        "It needs data like the model's own, and time: a short course on little data teaches a large model less than was cut away, and a step size "
        "that is too large unlearns more than it repairs."
    )
    paper: ClassVar[str] = (
        "[Zhu & Gupta 2017, To prune, or not to prune (arXiv:1710.01878)](https://arxiv.org/abs/1710.01878); feedback: "
        "[Lin et al. 2020 (arXiv:2006.07253)](https://arxiv.org/abs/2006.07253); gates: "
        "[Louizos et al. 2018 (arXiv:1712.01312)](https://arxiv.org/abs/1712.01312)"
    )

    technique: Literal["gradual"] = "gradual"
    sparsity: float = option(
        0.8, "Share of the weights that are zero at the end. 0 removes none, and only trains.", title="Weights removed (sparsity)", ge=0, le=0.99,
        when={"pattern": [""]},
    )  # fmt: skip
    scope: Literal["layer", "global"] = option("layer", **LAYER_OR_ALL)
    schedule: Literal["one-shot", "iterative", "cubic"] = option(
        "cubic",
        "All at once before training; the same share of what is left at every cut; or much at first and ever less towards the end.",
        title="When weights go (schedule)",
        words={"one-shot": "all at once (one shot)", "iterative": "the same share of the rest each time (iterative)", "cubic": "much first (cubic)"},
    )
    steps: int = option(
        300, "Training steps; the last quarter comes after the last cut.", title="Training steps", ge=1, le=100_000,
        stops=(50, 100, 200, 300, 500, 1000, 2000, 5000),
    )  # fmt: skip
    prune_every: int = option(
        20, "Training steps from one cut to the next; quality is measured as often.", title="Steps between cuts", ge=1, le=100_000,
        stops=(5, 10, 20, 30, 50, 100, 200),
    )  # fmt: skip
    rate: float = rate_option(1e-3)
    batch: int = batch_option(32)
    regrow: bool = option(
        False, "Cut weights go on learning unseen, and take the place of others when they have grown larger (dynamic pruning with feedback).",
        title="What was cut may come back",
    )  # fmt: skip
    regularizer: Literal["none", "l1", "l0"] = option(
        "none", "What is paid for while training: nothing, the size of weights (L1), or each weight whose gate is open (L0, hard concrete gates).",
        title="Pressed towards zero (regularizer)", advanced=True,
        words={"none": "no", "l1": "by their size (L1)", "l0": "by gates that close (L0)"},
    )  # fmt: skip
    strength: float = option(
        1e-5, "The price of a weight of size 1 (L1), or of an open gate (L0), in nats.", title="Its strength", advanced=True, ge=0, le=1,
        when={"regularizer": ["l1", "l0"]}, stops=(1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3),
    )  # fmt: skip
    distill_weight: float = distill_weight_option()
    temperature: float = temperature_option()
    target_mb: float = option(
        0.0, "Nothing more is removed once the model's file is as small as this, in MB. 0: off.", title="Stop at a size (MB)", advanced=True, ge=0,
        le=1e6, stops=(0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 500, 1000),
    )  # fmt: skip
    floor: float = option(
        0.0, "Stops, and goes back to the last cut that held, when quality on held-out examples falls below this share of the original's. 0: off.",
        title="Stop at a quality (share of the original's)", advanced=True, ge=0, le=1,
    )  # fmt: skip

    @model_validator(mode="after")
    def cuts_fit(self) -> Self:
        if self.schedule != "one-shot" and self.prune_every > self.steps:
            raise ValueError(f"prune_every is {self.prune_every} steps of {self.steps}, so it never comes; use at most steps, or schedule one-shot")
        return self

    @property
    def cuts(self) -> int:
        """How many times weights are removed; without a last quarter where there is only room for one."""
        return 1 if self.schedule == "one-shot" else max(1, int((1 - RECOVERY) * self.steps) // self.prune_every)

    def share_at(self, cut: int) -> float:
        """Share of the weights that is zero after a cut, counted from 1. Cubic: Zhu & Gupta's equation 1, from 0."""
        part, share = min(1.0, cut / self.cuts), self.removed
        match self.schedule:
            case "iterative":
                return 1 - (1 - share) ** part
            case "cubic":
                return share * (1 - (1 - part) ** 3)
            case _:
                return share

    @property
    def size_depends_on_data(self) -> bool:
        return self.target_mb > 0 or self.floor > 0

    @property
    def size_is_at_most(self) -> bool:
        return self.regularizer == "l0" and not self.size_depends_on_data

    def label(self) -> str:
        how = {"one-shot": "one shot", "iterative": "iterative", "cubic": "cubic"}[self.schedule]
        return f"Gradual {self.pattern or f'{100 * self.sparsity:g} %'} {how}{', regrowing' if self.regrow else ''}"


class LotteryTicket(Technique):
    title: ClassVar[str] = "Lottery ticket (experiment)"
    family: ClassVar[Family] = "pruning"
    kind: ClassVar[str] = "Trains in between"
    trains: ClassVar[bool] = True
    takes: ClassVar[tuple[Made, ...]] = ("dense",)
    leaves: ClassVar[Made] = "zeros"
    summary: ClassVar[str] = "Is there a small network in the large one that learns as well from the start? Find it, and try it against twins."
    idea: ClassVar[str] = (
        "Train a network **from scratch**, remove its smallest weights, and set those that are left back to what they were at the **beginning** "
        "(rewinding). Train again, remove again. What is left in the end is a sparse network with lucky first weights: a **winning ticket**. Its "
        "twins have equally many weights: one the same mask but other first weights, one a mask drawn by lot. If luck lies in mask and first weights "
        "together, both fall behind."
    )
    formula: ClassVar[str] = r"f(x;\, m \odot \theta_0) \quad\text{against}\quad f(x;\, m \odot \theta_0')\ \text{and}\ f(x;\, m' \odot \theta_0)"
    fails: ClassVar[str] = (
        "It trains the model from random weights again and again, so it is for small networks: a model that took weeks to train does not become good "
        "in a few hundred steps. Large networks have tickets only when weights are set back to an early step, not to the first."
    )
    paper: ClassVar[str] = "[Frankle & Carbin 2019, The Lottery Ticket Hypothesis (arXiv:1803.03635)](https://arxiv.org/abs/1803.03635)"

    technique: Literal["lottery-ticket"] = "lottery-ticket"
    rounds: int = option(3, "How many times weights are removed and the rest is set back.", title="Rounds", ge=1, le=20)
    share: float = option(0.5, "Share of the weights left that each round removes.", title="Removed in each round", ge=0.01, le=0.95)
    steps: int = option(
        80,
        "Training steps of each network, from its first weights on.",
        title="Training steps",
        ge=1,
        le=100_000,
        stops=(40, 80, 150, 300, 600, 1200),
    )
    rewind_step: int = option(
        0, "Weights are set back to what they were after so many steps. 0: to the first.", title="Set back to step (rewinding)", ge=0, le=100_000,
        stops=(0, 5, 10, 20, 50, 100),
    )  # fmt: skip
    seeds: int = option(3, "How many times all of it is repeated, with other first weights.", title="Repeats (seeds)", ge=1, le=20)
    scope: Literal["layer", "global"] = option("layer", **LAYER_OR_ALL | {"when": {}})
    rate: float = rate_option(3e-3)
    batch: int = batch_option(32)
    storage: Storage = Magnitude.model_fields["storage"]
    values: Literal["model", "float32", "bfloat16", "float16"] = Magnitude.model_fields["values"]

    @model_validator(mode="after")
    def rewinds_into_training(self) -> Self:
        if self.rewind_step >= self.steps:
            raise ValueError(f"rewind_step is {self.rewind_step} of {self.steps} training steps; it must be below steps")
        if self.storage == "n-of-m":
            raise ValueError("storage n-of-m needs a pattern, which tickets have not; choose another storage")
        return self

    def left(self, number: int) -> float:
        """Share of the weights that is left after so many rounds."""
        return (1 - self.share) ** number

    @property
    def removed(self) -> float:
        return 1 - self.left(self.rounds)

    @property
    def trainings(self) -> int:
        """Of all networks: for each seed the dense one, and in every round the ticket and its twins."""
        return self.seeds * (1 + 3 * self.rounds)

    def label(self) -> str:
        return f"Lottery ticket {100 * self.left(self.rounds):.2g} % left"
