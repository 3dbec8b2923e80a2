"""A number of bits for each layer, within a budget."""

from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BeforeValidator, model_validator

from engine.config.technique import Family, Needs, Technique, option
from engine.errors import option_name
from engine.techniques.quantization.rounding.config import RoundToNearest

Bits = Literal[2, 3, 4, 5, 6, 7, 8]


SHARED: dict[str, Any] = {
    "title": "Group size",
    "ge": 1,
    "le": 65536,
    "stops": (8, 16, 32, 64, 128, 256, 512),
}


def parse_bits_by_name(value: Any) -> Any:
    """Parse a mapping that is given as YAML text, one pattern per line.

    Raises ValueError if the text is not YAML.
    """
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value) or {}
    except yaml.YAMLError:
        raise ValueError(
            "bits_by_name must have one pattern per line, such as '*.mlp.*: 3'"
        ) from None


class MixedPrecision(Technique):
    list_position: ClassVar[int] = 90
    title: ClassVar[str] = "Mixed precision"
    kind: ClassVar[str] = "Bits per layer"
    family: ClassVar[Family] = "quantization"
    needs: ClassVar[Needs] = "answers"
    size_depends_on_data: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "Chooses the number of bits for each layer: more where rounding hurts the model, fewer "
        "where it does not."
    )
    explanation: ClassVar[str] = (
        "Layers differ in how much rounding hurts. Their sensitivity is measured by rounding **one "
        "layer at a time** and comparing the model's predictions (KL divergence on calibration "
        "data), or by rounding **all but one**. Bits are then allocated so that the total damage "
        "is least while the bytes stay within a **budget**: a knapsack problem, solved greedily or "
        "exactly. Alternatively, you set the bits by layer name."
    )
    formula: ClassVar[str] = (
        r"\min_{b_1 \dots b_n} \sum_i \Omega_i(b_i) \quad \text{subject to} \quad \sum_i "
        r"\mathrm{bytes}_i(b_i) \le B, \qquad"
        r" \Omega_i(b) = \mathrm{KL}\left(p \,\|\, p_{\,i \to b}\right)"
    )
    limitations: ClassVar[str] = (
        "Damage is added up as if layers were independent; at 2 bits they are not. With few "
        "calibration examples, small differences between layers are noise. The formula is for the "
        "quantize-one measure."
    )
    paper: ClassVar[str] = (
        "Sensitivity by KL divergence: [Cai et al. 2020, ZeroQ "
        "(arXiv:2001.00281)](https://arxiv.org/abs/2001.00281); allocation: [Yao et al. 2021, "
        "HAWQ-V3 (arXiv:2011.10680)](https://arxiv.org/abs/2011.10680)"
    )

    technique: Literal["mixed-precision"] = "mixed-precision"
    by: Literal["budget", "name"] = option(
        "budget",
        "Allocates bits within a budget, or by layer name.",
        title="Bits chosen by",
        words={"budget": "budget and measured sensitivity", "name": "layer names"},
    )
    budget: float = option(
        4.0,
        "Average bits per weight, including scales.",
        title="Budget (bits per weight)",
        ge=1.0,
        le=10.0,
        when={"by": ["budget"]},
    )
    choices: tuple[Bits, ...] = option(
        (2, 3, 4, 8),
        "Bit widths that a layer may get.",
        title="Candidate bits",
        when={"by": ["budget"]},
        min_length=1,
    )
    bits_by_name: Annotated[dict[str, Bits], BeforeValidator(parse_bits_by_name)] = option(
        {},
        "One pattern per line, such as '*.mlp.*: 3'. The first pattern that matches a layer's "
        "name applies.",
        title="Bits by name",
        when={"by": ["name"]},
    )
    bits: Bits = option(
        4,
        "Bits of layers that no pattern matches.",
        title="Bits of other layers",
        when={"by": ["name"]},
    )
    group_size: int = option(
        32,
        "Number of adjacent weights in a row that share one scale.",
        **SHARED,
    )
    scheme: Literal["symmetric", "asymmetric", "either"] = option(
        "symmetric",
        "Scheme of all layers, or the better one for each layer.",
        title="Scheme",
        advanced=True,
        words={
            "symmetric": "symmetric",
            "asymmetric": "asymmetric (zero point)",
            "either": "better per layer",
        },
    )
    range: Literal["absmax", "mse", "either"] = option(
        "mse",
        "How far the grid extends, for all layers or the better choice for each layer.",
        title="Clipping range",
        advanced=True,
        words={
            "absmax": "largest weight (absmax)",
            "mse": "least squared error (MSE)",
            "either": "better per layer",
        },
    )
    sensitivity: Literal["quantize-one", "restore-one"] = option(
        "quantize-one",
        "How a layer's damage is measured: by rounding it alone, or by leaving it unrounded while "
        "all others are rounded.",
        title="Sensitivity measure",
        advanced=True,
        when={"by": ["budget"]},
        words={
            "quantize-one": "quantize one layer",
            "restore-one": "restore one layer of the quantized model",
        },
    )
    solver: Literal["exact", "greedy"] = option(
        "exact",
        "Exact: the optimal allocation. Greedy: repeatedly takes the best next step.",
        title="Allocation solver (knapsack)",
        advanced=True,
        when={"by": ["budget"]},
    )
    examples: int = option(
        8,
        "Calibration examples used to measure sensitivity.",
        title="Examples",
        advanced=True,
        ge=1,
        le=256,
        when={"by": ["budget"]},
    )

    @model_validator(mode="after")
    def check_either(self) -> "MixedPrecision":
        if self.by == "name" and "either" in (self.scheme, self.range):
            raise ValueError(
                f"{option_name(self, 'scheme')} and {option_name(self, 'range')} can be 'either' "
                f"only if {option_name(self, 'by')} is budget; choose one value for each, or set "
                "by to budget"
            )
        return self

    def candidates(self) -> list[RoundToNearest]:
        """Settings that a layer may get, coarsest first."""
        schemes = ("symmetric", "asymmetric") if self.scheme == "either" else (self.scheme,)
        ranges = ("absmax", "mse") if self.range == "either" else (self.range,)
        return [
            self.rounding(bits, scheme, reach)
            for bits in sorted(set(self.choices))
            for scheme in schemes
            for reach in ranges
        ]

    def rounding(self, bits: int, scheme: str = "", reach: str = "") -> RoundToNearest:
        scheme, reach = (
            scheme or self.scheme.replace("either", "symmetric"),
            reach or self.range.replace("either", "absmax"),
        )
        return RoundToNearest(bits=bits, group_size=self.group_size, scheme=scheme, range=reach)

    @property
    def revision(self) -> int:
        """Highest revision among the grids that a layer may get."""
        return (
            max(candidate.revision for candidate in self.candidates())
            if self.by == "budget"
            else self.rounding(self.bits).revision
        )

    def label(self) -> str:
        return "Mixed precision " + (
            f"{self.budget:g} bits on average" if self.by == "budget" else "by name"
        )
