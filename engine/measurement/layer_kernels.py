"""Kernels that multiply a compressed model's stored weights."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch

from engine.kernels import Kernel, NoKernelError, supported_kernel
from engine.kernels.narrower import NarrowerLayerKernel, is_narrower
from engine.measurement.ready_layers import with_dense_weight
from engine.models.loaded_model import LoadedModel
from engine.results.schema.tables import NAN, LatencyRow
from engine.tensors.sparse import NOfM

MAX_NAMED = 3  # layers
NO_KERNEL = "No kernel here: {why}."


@dataclass
class Kernels:
    """Kernels of a compressed model's layers, and the reasons of layers without one."""

    found: dict[str, Kernel] = field(default_factory=dict)
    # reason -> layers
    missing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, compressed: LoadedModel, names: Iterable[str], original: LoadedModel) -> "Kernels":
        kernels, before = cls(), dict(original.model.named_modules())
        for name in names:
            try:
                layer = compressed.model.get_submodule(name)
                if compressed.device.type != "cpu" and not isinstance(layer.stored, NOfM):
                    raise NoKernelError(
                        f"this run computed on {compressed.device.type}, and all kernels "
                        "known here but that for 2:4 run on a CPU"
                    )
                kernels.found[name] = (
                    NarrowerLayerKernel(layer, with_dense_weight(layer, layer.compute))
                    if is_narrower(layer, before[name])
                    else supported_kernel(layer)
                )
            except NoKernelError as none:
                kernels.missing[str(none)].append(name)
        return kernels

    def reasons(self) -> Iterator[LatencyRow]:
        all_layers = len(self.found) + sum(map(len, self.missing.values()))
        for reason, names in self.missing.items():
            named = f": {', '.join(names)}" if len(names) <= MAX_NAMED else f", such as {names[0]}"
            layers = names[0] if len(names) == 1 else f"{len(names)} of {all_layers} layers{named}"
            yield LatencyRow(
                layers,
                "compressed",
                "",
                "",
                0,
                torch.get_num_threads(),
                NAN,
                NAN,
                NAN,
                0,
                note=NO_KERNEL.format(why=reason),
            )

    def without(self, precision: str) -> str:
        """Note on layers without a kernel."""
        missing = sum(map(len, self.missing.values()))
        return (
            (
                f"{missing} of {missing + len(self.found)} layers have no kernel and compute in "
                f"{precision}"
            )
            if missing
            else ""
        )

    @property
    def kernel_names(self) -> str:
        return " and ".join(dict.fromkeys(kernel.display_name for kernel in self.found.values()))

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(kernel.note for kernel in self.found.values() if kernel.note))
