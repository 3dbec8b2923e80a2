"""Options shared by low-rank techniques."""

from typing import Any, ClassVar, Literal

from engine.config.technique import Family, LiveView, Needs, Technique, WeightState, option

FACTORS: dict[str, Any] = {
    "default": "model",
    "description": "Number format of the factors; by default that of the model's file.",
    "title": "Factor precision",
    "advanced": True,
    "words": {"model": "same as the model's file"},
}


RANKS: dict[str, Any] = {"ge": 1, "le": 65536, "stops": (1, 2, 4, 8, 16, 32, 64, 128, 256)}


KEPT: dict[str, Any] = {
    "default": 0.8,
    "title": "Parameters kept",
    "ge": 0.01,
    "le": 1,
    "when": {"by": ["kept"]},
    "description": "Share of the parameters to keep: 0.8 is called 20% compression in papers. 1 "
    "leaves every "
    "layer unchanged.",
}


ENERGY: dict[str, Any] = {
    "default": 0.9,
    "title": "Energy kept",
    "ge": 0.01,
    "le": 1,
    "when": {"by": ["energy"]},
    "description": "Share of the sum of squared singular values to keep. The number of "
    "parameters follows "
    "from the weights.",
}


BY = {"kept": "share of parameters", "energy": "share of energy", "rank": "rank"}


NEEDS_BY_WHITENING: dict[str, Needs] = {
    "none": "nothing",
    "asvd": "range",
    "svd-llm": "gram",
    "fisher": "gradients",
}


class LowRankTechnique(Technique):
    """Options shared by methods that store a weight as a product."""

    family: ClassVar[Family] = "low-rank"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer")
    produces: ClassVar[WeightState] = "factors"

    @property
    def may_change_nothing(self) -> bool:
        """A layer whose factors would be larger than its weight is left unchanged, with a note."""
        return True


class WhitenedLowRank(LowRankTechnique):
    """Options shared by methods that can weight the approximation error by data."""

    live_views: ClassVar[tuple[LiveView, ...]] = ("singular-values",)

    whitening: Literal["none", "asvd", "svd-llm", "fisher"] = option(
        "svd-llm",
        "How approximation errors are weighted. None: all weights equally. ASVD: columns are "
        "scaled by the strength of their inputs. SVD-LLM: whitening with the Gram matrix of the "
        "inputs, which minimizes the output error. Fisher: output rows are scaled by the "
        "empirical Fisher information (gradients on labeled data).",
        title="Whitening",
        words={
            "none": "none",
            "asvd": "input strength (ASVD)",
            "svd-llm": "input Gram matrix (SVD-LLM)",
            "fisher": "Fisher information (FWSVD)",
        },
    )
    alpha: float = option(
        0.5,
        "Exponent of the mean absolute input that scales each column.",
        title="Scaling exponent (alpha)",
        advanced=True,
        ge=0,
        le=1,
        when={"whitening": ["asvd"]},
    )
    damping: float = option(
        1e-6,
        "Added to the diagonal of the inputs' Gram matrix, as a share of its mean. Increased "
        "automatically where that is not enough.",
        title="Damping",
        advanced=True,
        ge=1e-6,
        le=1,
        stops=(1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1),
        when={"whitening": ["svd-llm"]},
    )

    @property
    def needs(self) -> Needs:
        return NEEDS_BY_WHITENING[self.whitening]
