"""Options shared by calibrated quantization on a uniform grid."""

from typing import Any, ClassVar, Literal

from engine.config.technique import Family, Technique, option
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.techniques.quantization.scale_options import UniformGrid

BITS: dict[str, Any] = {
    "default": 4,
    "description": "Bits per stored weight.",
    "title": "Bits",
    "ge": 2,
    "le": 8,
}


GROUP_SIZE: dict[str, Any] = {
    "default": 32,
    "title": "Group size",
    "ge": 0,
    "le": 65536,
    "stops": (0, 8, 16, 32, 64, 128, 256, 512),
    "description": "Number of adjacent weights in a row that share one scale. The last group of "
    "a row may be "
    "shorter. 0: the whole row.",
}


RANGE: dict[str, Any] = {
    "default": "mse",
    "title": "Clipping range",
    "advanced": True,
    "words": UniformGrid.model_fields["range"].json_schema_extra["words"],
    "description": "How far the grid of each group extends: to the least squared error of its "
    "weights, to the "
    "largest weight (absmax), to a percentile, to a multiple of the root mean square, or to the "
    "least KL divergence.",
}


SCHEME: dict[str, Any] = {
    "default": "symmetric",
    "title": "Scheme",
    "description": "Symmetric grids are centered on zero. Asymmetric grids store a zero point "
    "and fit skewed "
    "weights.",
    "words": {"symmetric": "symmetric", "asymmetric": "asymmetric (zero point)"},
}


class GroupQuantized(Technique):
    """Options shared by methods whose result is a uniform grid per group."""

    family: ClassVar[Family] = "quantization"
    bits: int = option(**BITS)
    group_size: int = option(**GROUP_SIZE)
    scheme: Literal["symmetric", "asymmetric"] = option(**SCHEME)

    def rounding(self) -> RoundToNearest:
        """Rounding with the same grid and without calibration."""
        shared = (
            {"granularity": "group", "group_size": self.group_size}
            if self.group_size
            else {"granularity": "channel"}
        )
        return RoundToNearest(bits=self.bits, scheme=self.scheme, range="absmax", **shared)

    @property
    def group(self) -> int:
        return self.group_size

    @property
    def revision(self) -> int:
        """Revision of the grid."""
        return self.rounding().revision

    def label(self) -> str:
        shared = f"groups of {self.group_size}" if self.group_size else "per channel"
        return ", ".join(
            [
                f"{self.title} {self.bits}-bit",
                shared,
                *([self.scheme] if self.scheme == "asymmetric" else []),
            ]
        )
