"""Options shared by pruning techniques."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator

from engine.config.technique import Family, LiveView, Technique, WeightState, option
from engine.errors import option_name

PATTERN = re.compile(r"(\d{1,3}):(\d{1,3})")


SCOPE: dict[str, Any] = {
    "description": "Weights that are ranked together: those of one row (output channel), of one "
    "layer, or of "
    "all layers, so that some layers lose more than others.",
    "title": "Scope",
    "when": {"pattern": [""]},
    "words": {"row": "per row", "layer": "per layer", "global": "global (all layers)"},
}


Storage = Literal["smallest", "dense", "bitmask", "csr", "n-of-m"]


def parse_pattern(pattern: str) -> tuple[int, int]:
    """Parse a pattern such as "2:4" into its two numbers.

    Raises ValueError for any other text.
    """
    match = PATTERN.fullmatch(pattern.strip())
    if not match:
        raise ValueError(
            f"{pattern[:40]!r} is not a pattern; give N:M such as 2:4 (keeps 2 of every 4 "
            "adjacent weights), or leave it empty"
        )
    kept, of = int(match[1]), int(match[2])
    if not 1 <= kept < of:
        raise ValueError(
            f"{pattern} asks to keep {kept} of every {of} weights; N must be at least 1 and "
            "less than M, as in 2:4"
        )
    return kept, of


def check_pattern(pattern: str) -> str:
    if pattern:
        parse_pattern(pattern)
    return pattern


class Pruning(Technique):
    """Options shared by methods that set single weights to zero."""

    family: ClassVar[Family] = "pruning"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer")
    produces: ClassVar[WeightState] = "zeros"
    live_views: ClassVar[tuple[LiveView, ...]] = ("mask-overlap",)

    pattern: Annotated[str, AfterValidator(check_pattern)] = option(
        "",
        "Keeps N of every M adjacent weights in a row. 2:4 runs on NVIDIA sparse tensor cores "
        "(Ampere and later, in FP16, BF16, INT8 and FP8) and speeds up large batches only; vLLM "
        "no longer supports it. No hardware runs 4:8 or 1:4. Empty: unstructured.",
        title="Pattern (N:M)",
        choices=("", "2:4", "4:8", "1:4"),
        words={"": "none (unstructured)"},
    )
    sparsity: float = option(
        0.5,
        "Share of the weights set to zero. 0 changes nothing.",
        title="Sparsity",
        ge=0,
        le=0.99,
        when={"pattern": [""]},
    )
    scope: Literal["row", "layer", "global"] = option("layer", **SCOPE)
    storage: Storage = option(
        "smallest",
        "Storage of the remaining weights: the smallest of all ways, dense with explicit zeros, "
        "one bit per weight plus the nonzero weights (bitmask), or the column of each nonzero "
        "weight (CSR). With a pattern, also their positions within each M.",
        title="Storage",
        advanced=True,
        words={
            "smallest": "smallest",
            "dense": "dense (zeros stored)",
            "bitmask": "bitmask and values",
            "csr": "compressed rows (CSR)",
            "n-of-m": "N:M positions",
        },
    )
    values: Literal["model", "float32", "bfloat16", "float16"] = option(
        "model",
        "Number format of the remaining weights; by default that of the model's file.",
        title="Weight precision",
        advanced=True,
        words={"model": "same as the model's file"},
    )

    @model_validator(mode="after")
    def check_storage(self) -> Self:
        if self.storage == "n-of-m" and not self.pattern:
            raise ValueError(
                f"the {option_name(self, 'storage')} n-of-m needs a pattern such as 2:4; set "
                f"{option_name(self, 'pattern')}, or choose another storage"
            )
        return self

    @property
    def removed_share(self) -> float:
        """Share of the weights set to zero."""
        if not self.pattern:
            return self.sparsity
        kept, of = parse_pattern(self.pattern)
        return 1 - kept / of

    @property
    def may_change_nothing(self) -> bool:
        return self.removed_share == 0

    def label(self) -> str:
        pattern = (
            self.pattern
            or f"{100 * self.sparsity:g}%"
            + {"row": " of each row", "layer": "", "global": " of all layers"}[self.scope]
        )
        return f"{self.title} {pattern}"


class StructuredPruning(Technique):
    """Options shared by methods that remove structures from a model."""

    removes_structures: ClassVar[bool] = True
    family: ClassVar[Family] = "pruning"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense",)
    produces: ClassVar[WeightState] = "fewer"
