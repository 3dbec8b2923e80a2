"""Stored form of one weight tensor, with its bytes and its conversion to a dense tensor.

Weights are matrices with output channels first: (out, in_). A convolution's kernel is flattened,
(out, in_ * height * width); GPT-2's ``Conv1D`` is transposed.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch

from engine.tensors.packing import code_counts, unpack_bits

ConvChain = tuple[tuple[torch.Tensor, dict[str, Any]], ...]
REGISTRY: dict[str, type["StoredWeight"]] = {}


@dataclass(frozen=True)
class StoredWeight:
    """Tensors and settings of one stored weight. Subclasses add fields: tensors are stored, the
    rest is metadata.
    """

    kind: ClassVar[str]
    names: ClassVar[dict[str, str]]  # field -> its name in the byte breakdown
    shape: tuple[int, int]  # of the dense matrix: out, in_

    def __init_subclass__(cls) -> None:
        REGISTRY[cls.kind] = cls

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The weight as the model sees it, computed in float32 and rounded to ``dtype`` once.
        (out, in_)
        """
        raise NotImplementedError

    def quantized_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs as they are multiplied with the weight. Subclasses may quantize or
        permute them.
        """
        return inputs

    def factors(self, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Factors that are applied to the inputs one after the other, if that is less work than
        with their product; otherwise empty.
        """
        return ()

    def conv_chain(
        self, kernel: tuple[int, ...], config: dict[str, Any], dtype: torch.dtype
    ) -> "ConvChain":
        """Chain of convolutions for a ``kernel`` (out, in_, height, width), each with its own
        stride, padding and other options.
        """
        return ()

    def parts(self) -> dict[str, "StoredWeight"]:
        """Stored weights inside this one, by field."""
        return {
            field.name: value
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), StoredWeight)
        }

    def own_tensors(self) -> dict[str, torch.Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensors of the weight and its parts, named "part.name"."""
        inner = {
            f"{part}.{name}": value
            for part, stored in self.parts().items()
            for name, value in stored.tensors().items()
        }
        return self.own_tensors() | inner

    def settings(self) -> dict[str, Any]:
        """All fields except tensors, as JSON types, without those that are None."""
        plain = {
            field.name: value
            for field in fields(self)
            if not isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return {"kind": self.kind} | {
            name: json_value(value) for name, value in plain.items() if value is not None
        }

    def byte_breakdown(self) -> dict[str, int]:
        """Bytes by content, such as codes and scales."""
        own: Counter[str] = Counter()
        for name, value in self.own_tensors().items():
            own[self.names[name]] += value.nbytes
        return dict(sum((Counter(part.byte_breakdown()) for part in self.parts().values()), own))

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.tensors().values())

    def to(self, device: torch.device | str) -> Self:
        return replace(
            self,
            **{
                name: value.to(device)
                for name, value in (self.own_tensors() | self.parts()).items()
            },
        )

    def levels(self) -> torch.Tensor:
        """Levels that a weight may take at the median scale; empty if any value is possible."""
        return torch.empty(0)

    def level_counts(self) -> torch.Tensor:
        """Number of weights at each of ``levels()``, over all scales; empty if not counted."""
        return torch.empty(0, dtype=torch.int64)

    def note(self) -> str:
        """Note on how the weight is stored; usually empty."""
        return ""


def weight_from_settings(
    settings: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> StoredWeight:
    """The stored weight with these ``settings()`` and ``tensors()``."""
    plain = {key: value for key, value in settings.items() if key != "kind"}
    nested = {key: value for key, value in plain.items() if isinstance(value, dict)}
    parts = {
        key: weight_from_settings(
            config,
            {name[len(key) + 1 :]: tensors[name] for name in tensors if name.startswith(f"{key}.")},
        )
        for key, config in nested.items()
    }
    own = {name: value for name, value in tensors.items() if "." not in name}
    return REGISTRY[settings["kind"]](**plain | {"shape": tuple(plain["shape"])} | own | parts)


def json_value(value: Any) -> Any:
    if isinstance(value, StoredWeight):
        return value.settings()
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class DenseWeight(StoredWeight):
    """An uncompressed weight."""

    kind: ClassVar[str] = "dense"
    names: ClassVar[dict[str, str]] = {"weight": "dense weights"}
    weight: torch.Tensor  # (out, in_), in the model's own dtype

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.weight.to(dtype)


@dataclass(frozen=True)
class IntegerWeight(StoredWeight):
    """Codes on an even grid: weight = scale * (code - zero). One scale for the tensor, a row, or a
    group inside a row.
    """

    kind: ClassVar[str] = "grid"
    names: ClassVar[dict[str, str]] = {
        "codes": "codes",
        "scales": "scales",
        "zeros": "zero points",
        "order": "column order",
    }
    bits: int
    # columns that share a scale, all of them if there is one per row; the last group may be
    # shorter
    group_size: int
    codes: torch.Tensor  # bytes, see ``packing``; code 0 is the lowest level
    # (out, groups), (out, 1) or (1, 1); float16, float32 if that is too coarse, or E8M0: powers
    # of two in a byte
    scales: torch.Tensor
    # codes of zero, one per scale: packed in ``bits``, or floats if zero lies between two
    # codes; None: 2^(bits - 1)
    zeros: torch.Tensor | None = None
    # (in_,) int32: the column at each position, if groups are not adjacent columns
    order: torch.Tensor | None = None
    # rows that share a scale in block-wise formats; there is a row of scales for each band
    # of rows
    rows: int | None = None

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        weight = self.code_matrix().float()
        for part, scale, zero in groups_with_params(
            weight,
            self.group_size,
            self.per_row(self.scales.float()),
            self.per_row(self.zero_codes().float()),
        ):
            part.sub_(zero).mul_(scale)
        if self.order is not None:
            weight = weight[:, self.order.argsort()]
        return weight.to(dtype)

    def code_matrix(self) -> torch.Tensor:
        """(out, in_) uint8, in the order in which they are stored"""
        return unpack_bits(self.codes, self.bits, self.shape[0] * self.shape[1]).view(self.shape)

    def per_row(self, params: torch.Tensor) -> torch.Tensor:
        """Scales with one row per row of the weight, or one row for all."""
        return (
            params if self.rows is None else params.repeat_interleave(self.rows, 0)[: self.shape[0]]
        )

    def zero_codes(self) -> torch.Tensor:
        """Zero code for each scale. (out, groups) as ``scales``"""
        if self.zeros is None:
            return torch.full(self.scales.shape, 2 ** (self.bits - 1), device=self.scales.device)
        if self.zeros.is_floating_point():
            return self.zeros
        return unpack_bits(self.zeros, self.bits, self.scales.numel()).view(self.scales.shape)

    def levels(self) -> torch.Tensor:
        flat = self.scales.flatten().float()
        middle = int(flat.argsort()[len(flat) // 2])
        zero = self.zero_codes().flatten()[middle].float()
        return (torch.arange(2**self.bits, device=flat.device) - zero) * flat[middle]

    def level_counts(self) -> torch.Tensor:
        return code_counts(self.code_matrix(), 2**self.bits)


@dataclass(frozen=True)
class TransposedWeight(StoredWeight):
    """A weight stored by its columns: scales are shared along the outputs."""

    kind: ClassVar[str] = "turned"
    names: ClassVar[dict[str, str]] = {}
    columns: StoredWeight  # of shape (in_, out)

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.columns.to_dense(dtype).T.contiguous()

    def levels(self) -> torch.Tensor:
        return self.columns.levels()

    def level_counts(self) -> torch.Tensor:
        return self.columns.level_counts()


def groups_with_params(
    weight: torch.Tensor, width: int, *params: torch.Tensor
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Views of the full groups, then of the shorter last ones, each with its params. (out, in_),
    (out, groups) each -> (out, groups, width), (out, groups, 1) each
    """
    full_groups, in_ = weight.shape[1] // width, weight.shape[1]
    edge = full_groups * width
    if full_groups:
        yield (
            weight[:, :edge].unflatten(1, (full_groups, -1)),
            *(param[:, :full_groups, None] for param in params),
        )
    if edge < in_:
        yield weight[:, edge:].unsqueeze(1), *(param[:, full_groups:, None] for param in params)
