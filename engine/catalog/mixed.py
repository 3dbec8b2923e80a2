"""Bits where they matter: mixed precision, and the experiment that shows why."""

from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BeforeValidator, model_validator

from engine.catalog.quantization import RoundToNearest
from engine.catalog.technique import Family, Made, Needs, Technique, option

Bits = Literal[2, 3, 4, 5, 6, 7, 8]
SHARED = {"title": "Group size", "ge": 1, "le": 65536, "stops": (8, 16, 32, 64, 128, 256, 512)}


def read(value: Any) -> Any:
    """A mapping, also as the lines a person types."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value) or {}
    except yaml.YAMLError:
        raise ValueError("write one pattern a line, such as '*.mlp.*: 3'") from None


class MixedPrecision(Technique):
    title: ClassVar[str] = "Mixed precision"
    kind: ClassVar[str] = "Where bits matter"
    family: ClassVar[Family] = "quantization"
    needs: ClassVar[Needs] = "answers"
    size_depends_on_data: ClassVar[bool] = True
    summary: ClassVar[str] = "Give each layer its own number of bits: more where the model would feel it, fewer where it would not."
    idea: ClassVar[str] = (
        "Layers differ in how much rounding hurts. That is measured: round **one layer alone** and see how far the model's answers move "
        "(KL divergence on calibration data), or round **all but one**. Then bits are dealt out so that the sum of the damage is least "
        "while the bytes stay under a **budget**: a knapsack problem, solved step by step (greedy) or exactly. Or you name the bits yourself."
    )
    formula: ClassVar[str] = (
        r"\min_{b_1 \dots b_n} \sum_i \Omega_i(b_i) \quad \text{so that} \quad \sum_i \mathrm{bytes}_i(b_i) \le B, \qquad"
        r" \Omega_i(b) = \mathrm{KL}\left(p \,\|\, p_{\,i \to b}\right)"
    )
    fails: ClassVar[str] = (
        "Damage is added up as if layers did not influence one another; at 2 bits they do. With few calibration examples, small differences "
        "between layers are noise."
    )
    paper: ClassVar[str] = "[Dong et al. 2019, HAWQ-V2 (arXiv:1911.03852)](https://arxiv.org/abs/1911.03852)"

    technique: Literal["mixed-precision"] = "mixed-precision"
    by: Literal["budget", "name"] = option(
        "budget", "Whether bits are dealt out under a budget, or by the names of layers.", title="Who decides",
        words={"budget": "a budget, from measured damage", "name": "names of layers"},
    )  # fmt: skip
    budget: float = option(
        4.0, "Average bits of one weight, scales included.", title="Budget, bits per weight", ge=1.0, le=10.0, when={"by": ["budget"]}
    )
    choices: tuple[Bits, ...] = option(
        (2, 3, 4, 8), "The numbers of bits a layer may get.", title="Bits to choose from", when={"by": ["budget"]}, min_length=1
    )
    bits_by_name: Annotated[dict[str, Bits], BeforeValidator(read)] = option(
        {}, "One pattern a line, such as '*.mlp.*: 3'. The first that fits a layer's name counts.", title="Bits by name", when={"by": ["name"]}
    )
    bits: Bits = option(4, "Bits of the layers that no pattern names.", title="Bits of all others", when={"by": ["name"]})
    group_size: int = option(32, "How many neighbouring weights of a row share one scale.", **SHARED)
    scheme: Literal["symmetric", "asymmetric", "either"] = option(
        "symmetric", "The grid of every layer, or whichever is better for it.", title="Grid (scheme)", advanced=True,
        words={"symmetric": "centred on zero (symmetric)", "asymmetric": "with a zero point (asymmetric)", "either": "the better for each layer"},
    )  # fmt: skip
    range: Literal["absmax", "mse", "either"] = option(
        "absmax", "How far the grid reaches, in every layer or whichever is better for it.", title="Range (clipping)", advanced=True,
        words={"absmax": "widest weight (absmax)", "mse": "least squared error", "either": "the better for each layer"},
    )  # fmt: skip
    sensitivity: Literal["quantize-one", "restore-one"] = option(
        "quantize-one", "What counts as a layer's damage: rounding it alone, or leaving it as it is while all others are rounded.",
        title="Damage is measured by", advanced=True, when={"by": ["budget"]},
        words={"quantize-one": "rounding one layer alone", "restore-one": "restoring one layer of a rounded model"},
    )  # fmt: skip
    solver: Literal["exact", "greedy"] = option(
        "exact", "Exact: the best of all assignments. Greedy: the best next step, again and again.", title="How bits are dealt out (knapsack)",
        advanced=True, when={"by": ["budget"]},
    )  # fmt: skip
    examples: int = option(
        8, "Calibration examples that damage is measured on.", title="Examples", advanced=True, ge=1, le=256, when={"by": ["budget"]}
    )

    @model_validator(mode="after")
    def decidable(self) -> "MixedPrecision":
        if self.by == "name" and "either" in (self.scheme, self.range):
            raise ValueError("scheme and range 'either' are chosen under a budget; name one of them, or set by to 'budget'")
        return self

    def candidates(self) -> list[RoundToNearest]:
        """Every setting a layer may get, coarsest first."""
        schemes = ("symmetric", "asymmetric") if self.scheme == "either" else (self.scheme,)
        ranges = ("absmax", "mse") if self.range == "either" else (self.range,)
        return [self.rounding(bits, scheme, reach) for bits in sorted(set(self.choices)) for scheme in schemes for reach in ranges]

    def rounding(self, bits: int, scheme: str = "", reach: str = "") -> RoundToNearest:
        scheme, reach = scheme or self.scheme.replace("either", "symmetric"), reach or self.range.replace("either", "absmax")
        return RoundToNearest(bits=bits, group_size=self.group_size, scheme=scheme, range=reach)

    def label(self) -> str:
        return "Mixed precision " + (f"{self.budget:g} bits on average" if self.by == "budget" else "by name")


class AWQSalience(Technique):
    title: ClassVar[str] = "Salient weights (experiment)"
    kind: ClassVar[str] = "Where bits matter"
    family: ClassVar[Family] = "quantization"
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer")
    needs: ClassVar[Needs] = "answers"
    summary: ClassVar[str] = "Is 1 % of the weights enough to save a model? Keep a few input channels in 16 bits, or scale them, and compare."
    idea: ClassVar[str] = (
        "Round everything to a few bits, but keep a small share of the input channels in 16: those with the strongest **activations**, those "
        "with the largest **weights**, or some at **random**. Then, instead of keeping them, multiply them by a scale before rounding and "
        "divide afterwards. One run measures all of these; its table is the result, and the best scale is the model that is kept."
    )
    formula: ClassVar[str] = r"\hat w = \mathrm{quant}(s\,w)\,/\,s, \qquad s \in \{1,\ 1.25,\ 1.5,\ 2,\ 4\}"
    fails: ClassVar[str] = (
        "It explains rather than compresses: kept channels make a format that no fast kernel reads, and one scale for all layers is cruder "
        "than AWQ's search. A model whose activations are even has no salient channels to find."
    )
    paper: ClassVar[str] = "[Lin et al. 2023, AWQ, tables 1 and 2 (arXiv:2306.00978)](https://arxiv.org/abs/2306.00978)"

    technique: Literal["awq-salience"] = "awq-salience"
    bits: int = option(3, "Bits of one stored weight.", title="Bits", ge=2, le=8)
    group_size: int = option(128, "How many neighbouring weights of a row share one scale.", **SHARED)

    def rounding(self) -> RoundToNearest:
        return RoundToNearest(bits=self.bits, group_size=self.group_size, scheme="asymmetric")

    @property
    def group(self) -> int:
        return self.group_size

    def label(self) -> str:
        return f"Salient weights {self.bits}-bit, groups of {self.group_size}"
