"""Limit on the modules built for a model: a few times what its weight files contain."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from engine.errors import PlainError
from engine.models.model_source import ModelSource, tensor_totals
from engine.quantities import megabytes

ALLOWED_MULTIPLE = (
    4  # allowed multiple of the stored size: files omit tied weights, heads and other parts
)
FEW_TENSORS = 2_000  # always allowed, as are the following
SMALL_PARAMETERS, SMALL_BUFFERS = 64_000_000, 1_000_000_000  # the latter in bytes


@contextmanager
def within_stored_size(folder: ModelSource) -> Iterator[None]:
    """Limit the model built inside to several times the parameters and tensors in its files.

    Raises PlainError at the first excess parameter or buffer, before any memory is allocated,
    because modules are created on the meta device.
    """
    stored = tensor_totals(folder.files, str(folder))
    guard = SizeGuard(
        str(folder),
        ALLOWED_MULTIPLE * stored.tensors + FEW_TENSORS,
        # codes and factors represent more weights
        None if folder.packed else ALLOWED_MULTIPLE * stored.parameters + SMALL_PARAMETERS,
        max(SMALL_BUFFERS, 2 * folder.size_bytes),
    )
    hooks = (
        register_module_parameter_registration_hook(guard.parameter),
        register_module_buffer_registration_hook(guard.buffer),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class SizeGuard:
    """Counter of registered parameters and buffers; replacing one, as loading does, does not count
    again.
    """

    def __init__(
        self, name: str, max_tensors: int, max_parameters: int | None, max_buffer_bytes: int
    ):
        self.name = name
        self.max_tensors, self.max_parameters, self.max_buffer_bytes = (
            max_tensors,
            max_parameters,
            max_buffer_bytes,
        )
        self.counted: set[tuple[int, str]] = set()
        self.parameters = self.buffer_bytes = 0

    def parameter(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        if not self._is_new(module, name, value):
            return
        self.parameters += value.numel()
        if len(self.counted) > self.max_tensors:
            raise self._error(f"more than {self.max_tensors:,} tensors")
        if self.max_parameters is not None and self.parameters > self.max_parameters:
            raise self._error(f"more than {self.max_parameters:,} parameters")

    def buffer(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        if not self._is_new(module, f"{name} (buffer)", value):
            return
        self.buffer_bytes += value.numel() * value.itemsize
        if self.buffer_bytes > self.max_buffer_bytes:
            raise self._error(
                f"tables of more than {megabytes(self.max_buffer_bytes)}, as for positions,"
            )

    def _is_new(self, module: nn.Module, name: str, value: Tensor | None) -> bool:
        key = (id(module), name)
        if value is None or key in self.counted:
            return False
        self.counted.add(key)
        return True

    def _error(self, excess: str) -> PlainError:
        return PlainError(
            f"config.json of {self.name} describes a model with {excess} that its weight files do "
            "not contain; they belong to different models: download it again."
        )
