"""Experiment: lottery tickets."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from engine.config.technique import Family, Technique, WeightState, option
from engine.errors import option_name
from engine.techniques.pruning.gradual.config import LAYER_OR_ALL
from engine.techniques.pruning.options import Storage
from engine.techniques.pruning.unstructured.config import Magnitude
from engine.techniques.training_options import batch_option, rate_option


class LotteryTicket(Technique):
    list_position: ClassVar[int] = 240
    title: ClassVar[str] = "Lottery ticket (experiment)"
    family: ClassVar[Family] = "pruning"
    kind: ClassVar[str] = "With training"
    trains: ClassVar[bool] = True
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense",)
    produces: ClassVar[WeightState] = "zeros"
    summary: ClassVar[str] = (
        "Does the large network contain a small one that trains as well from scratch? Finds it and "
        "compares it with control networks."
    )
    explanation: ClassVar[str] = (
        "Trains a network **from scratch**, removes its smallest weights, and resets the others to "
        "their **initial values** (rewinding), then repeats. The result is a sparse network with "
        "favorable initial weights: a **winning ticket**. Two controls have equally many weights: "
        "one has the same mask with other initial weights, one a random mask. If both mask and "
        "initial weights matter, both controls are worse."
    )
    formula: ClassVar[str] = (
        r"f(x;\, m \odot \theta_0) \quad\text{against}\quad f(x;\, m \odot "
        r"\theta_0')\ \text{and}\ f(x;\, m' \odot \theta_0)"
    )
    limitations: ClassVar[str] = (
        "It trains the model from random weights several times, so it suits small networks: a few "
        "hundred steps do not replace weeks of training. Large networks have winning tickets only "
        "if weights are reset to an early training step instead of their initial values."
    )
    paper: ClassVar[str] = (
        "[Frankle & Carbin 2019, The Lottery Ticket Hypothesis "
        "(arXiv:1803.03635)](https://arxiv.org/abs/1803.03635); rewinding to an early step: "
        "[Frankle et al. 2020 (arXiv:1912.05671)](https://arxiv.org/abs/1912.05671)"
    )

    technique: Literal["lottery-ticket"] = "lottery-ticket"
    rounds: int = option(
        3,
        "Number of pruning rounds; after each, the remaining weights are reset.",
        title="Rounds",
        ge=1,
        le=20,
    )
    share: float = option(
        0.5,
        "Share of the remaining weights removed in each round.",
        title="Share removed per round",
        ge=0.01,
        le=0.95,
    )
    steps: int = option(
        80,
        "Training steps of each network, from its initial weights.",
        title="Training steps",
        ge=1,
        le=100_000,
        stops=(40, 80, 150, 300, 600, 1200),
    )
    rewind_step: int = option(
        0,
        "Resets weights to their values after this many training steps. 0: to the initial values.",
        title="Rewind to step",
        ge=0,
        le=100_000,
        stops=(0, 5, 10, 20, 50, 100),
    )
    seeds: int = option(
        3,
        "Number of repetitions with other initial weights.",
        title="Seeds",
        ge=1,
        le=20,
    )
    scope: Literal["layer", "global"] = option("layer", **LAYER_OR_ALL | {"when": {}})
    rate: float = rate_option(3e-3)
    batch: int = batch_option(32)
    storage: Storage = Magnitude.model_fields["storage"]
    values: Literal["model", "float32", "bfloat16", "float16"] = Magnitude.model_fields["values"]

    @model_validator(mode="after")
    def check_rewind_step(self) -> Self:
        if self.rewind_step >= self.steps:
            raise ValueError(
                f"{option_name(self, 'rewind_step')} is {self.rewind_step}, and training has "
                f"{self.steps} steps; lower it below {option_name(self, 'steps')}"
            )
        if self.storage == "n-of-m":
            raise ValueError(
                f"the {option_name(self, 'storage')} n-of-m needs an N:M pattern, and "
                "lottery tickets have none; choose another storage"
            )
        return self

    def remaining_share(self, number: int) -> float:
        """Share of the weights that remain after a number of rounds."""
        return (1 - self.share) ** number

    @property
    def removed_share(self) -> float:
        return 1 - self.remaining_share(self.rounds)

    @property
    def trainings(self) -> int:
        """Number of networks trained: for each seed the dense one, and in each round the ticket and
        its two controls.
        """
        return self.seeds * (1 + 3 * self.rounds)

    def label(self) -> str:
        return f"Lottery ticket {100 * self.remaining_share(self.rounds):.2g}% left"
