"""Gradual magnitude pruning with training in between."""

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from engine.config.technique import option
from engine.errors import option_name
from engine.techniques.pruning.options import SCOPE, Pruning
from engine.techniques.training_options import (
    batch_option,
    distill_weight_option,
    rate_option,
    temperature_option,
)

RECOVERY = 0.25  # share of the training after the last pruning step


LAYER_OR_ALL: dict[str, Any] = SCOPE | {
    "description": (
        "Weights that are ranked together: those of one layer, or of all layers, so that some "
        "layers lose more than others."
    ),
    "words": {"layer": "per layer", "global": "global (all layers)"},
}


class Gradual(Pruning):
    list_position: ClassVar[int] = 230
    title: ClassVar[str] = "Gradual pruning with training"
    kind: ClassVar[str] = "With training"
    trains: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "Removes the smallest weights in small steps and trains the remaining ones in between."
    )
    explanation: ClassVar[str] = (
        "Pruning all at once hurts most. Gradual pruning removes a few weights, **trains**, and "
        "repeats, so that the remaining weights compensate for the removed ones. The cubic "
        "**schedule** removes many weights early and few at the end. Pruned weights may come back "
        "(**dynamic pruning with feedback**): they keep receiving gradients, and the mask is "
        "recomputed at every pruning step. A penalty can push weights, or gates on them, toward "
        "zero (**L1, L0**), and the original model can serve as the teacher (**distillation**)."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} s_t = s_f\left(1 - \left(1 - \tfrac{t}{n}\right)^3\right),"
        r" \qquad n \text{ pruning steps} \\[4pt]"
        r" \mathcal{L} = (1-\alpha)\,\mathrm{CE} + "
        r"\alpha\,\tau^2\,\mathrm{KL}(p^\tau_{\text{dense}} \,\|\, p^\tau)"
        r" + \lambda\,\Omega(W), \qquad \tau \text{ temperature} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "It needs time and data like the model's own: a short run on little data cannot restore "
        "what was pruned from a large model, and a learning rate that is too high does more damage "
        "than it repairs."
    )
    paper: ClassVar[str] = (
        "[Zhu & Gupta 2017, To prune, or not to prune "
        "(arXiv:1710.01878)](https://arxiv.org/abs/1710.01878); feedback: "
        "[Lin et al. 2020 (arXiv:2006.07253)](https://arxiv.org/abs/2006.07253); gates: "
        "[Louizos et al. 2018 (arXiv:1712.01312)](https://arxiv.org/abs/1712.01312)"
    )

    technique: Literal["gradual"] = "gradual"
    sparsity: float = option(
        0.8,
        "Share of the weights that are zero at the end. 0 only trains.",
        title="Sparsity",
        ge=0,
        le=0.99,
        when={"pattern": [""]},
    )
    scope: Literal["layer", "global"] = option("layer", **LAYER_OR_ALL)
    schedule: Literal["one-shot", "iterative", "cubic"] = option(
        "cubic",
        "One shot: all weights are removed before training. Iterative: the same share of the "
        "remaining weights at every pruning step. Cubic: many weights at first, fewer toward the "
        "end.",
        title="Pruning schedule",
        words={"one-shot": "one shot", "iterative": "iterative", "cubic": "cubic"},
    )
    steps: int = option(
        300,
        "Number of training steps. The last quarter comes after the last pruning step, unless "
        "pruned weights may come back.",
        title="Training steps",
        ge=1,
        le=100_000,
        stops=(50, 100, 200, 300, 500, 1000, 2000, 5000),
    )
    prune_every: int = option(
        20,
        "Training steps between pruning steps; quality is evaluated at the same interval.",
        title="Pruning interval",
        ge=1,
        le=100_000,
        stops=(5, 10, 20, 30, 50, 100, 200),
    )
    rate: float = rate_option(1e-3)
    batch: int = batch_option(32)
    regrow: bool = option(
        False,
        "Pruned weights keep receiving gradients and return when they exceed others (dynamic "
        "pruning with feedback). The mask is recomputed until the end of the training.",
        title="Regrow pruned weights",
    )
    regularizer: Literal["none", "l1", "l0"] = option(
        "none",
        "Sparsity regularizer: L1 on weights, or L0 with hard concrete gates.",
        title="Sparsity regularizer",
        advanced=True,
        words={"none": "none", "l1": "L1", "l0": "L0 (gates)"},
    )
    strength: float = option(
        1e-5,
        "Weight of the regularizer in the loss (in nats): per unit of weight magnitude (L1) or "
        "per open gate (L0).",
        title="Regularizer strength",
        advanced=True,
        ge=0,
        le=1,
        when={"regularizer": ["l1", "l0"]},
        stops=(1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 1e-3),
    )
    distill_weight: float = distill_weight_option()
    temperature: float = temperature_option()
    target_mb: float = option(
        0.0,
        "Stops pruning when the model's file is this small, in MB. 0: off.",
        title="Target size (MB)",
        advanced=True,
        ge=0,
        le=1e6,
        stops=(0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 500, 1000),
    )
    floor: float = option(
        0.0,
        "Stops pruning, and returns to the last pruning step that met this limit, when quality on "
        "held-out examples falls below this share of the original's. 0: off.",
        title="Minimum quality (share of the original)",
        advanced=True,
        ge=0,
        le=1,
    )

    @model_validator(mode="after")
    def check_prune_every(self) -> Self:
        if self.schedule != "one-shot" and self.prune_every > self.steps:
            raise ValueError(
                f"{option_name(self, 'prune_every')} is {self.prune_every}, more than the "
                f"{self.steps} training steps; lower it, or set {option_name(self, 'schedule')} to "
                "one-shot"
            )
        return self

    @property
    def pruning_steps(self) -> int:
        """Number of pruning steps; at least one, even if it falls into the last quarter."""
        return (
            1
            if self.schedule == "one-shot"
            else max(1, int((1 - RECOVERY) * self.steps) // self.prune_every)
        )

    def sparsity_at(self, pruning_step: int) -> float:
        """Share of zero weights after a pruning step, counted from 1. Cubic: Zhu & Gupta, equation
        1, starting at 0.
        """
        part, share = min(1.0, pruning_step / self.pruning_steps), self.removed_share
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
        schedule = self.schedule.replace("-", " ")
        return (
            f"Gradual {self.pattern or f'{100 * self.sparsity:g}%'} "
            f"{schedule}{', regrowing' if self.regrow else ''}"
        )
