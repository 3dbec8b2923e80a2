"""A weight with whole rows and columns removed, viewed at its original shape."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from engine.tensors.weights import StoredWeight


@dataclass(frozen=True)
class SlicedWeight(StoredWeight):
    """Removed rows and columns are zero. Files contain ``weight`` only, as a dense one of its own
    shape.
    """

    kind: ClassVar[str] = "narrowed"
    names: ClassVar[dict[str, str]] = {
        "weight": "dense weights",
        "rows": "rows left",
        "columns": "columns left",
    }
    weight: torch.Tensor  # (rows left, columns left)
    rows: torch.Tensor  # (rows left,) int64
    columns: torch.Tensor

    def to_dense(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        dense = torch.zeros(self.shape, dtype=dtype, device=self.weight.device)
        dense[self.rows[:, None], self.columns] = self.weight.to(dtype)
        return dense

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes
