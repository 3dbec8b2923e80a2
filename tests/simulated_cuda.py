"""Simulated CUDA device: tensors that report ``cuda:0`` and compute on the CPU.

Unlike with ``FakeTensorMode``, tensors have values, so code that depends on data (k-means,
searches, ranks) runs completely. Operations that torch refuses on a real GPU are refused: operands
on two devices, except zero-dimensional CPU tensors and CPU indices that CUDA kernels accept, and
``numpy()`` of a tensor that is not on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bitsandbytes  # noqa: F401, chooses its kernels when it is imported: the CPU's
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, CUDA, META = map(torch.device, ("cpu", "cuda:0", "meta"))
# the operators that cross devices
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
SET_DATA = torch.Tensor.data.__set__
SELECTING = (torch.where, torch.Tensor.where)
INDEXING = {  # CUDA kernels that take the indices, but nothing else, from the CPU
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._unsafe_index.Tensor,
}


class SimulatedCudaTensor(torch.Tensor):
    """Tensor that reports ``cuda:0`` and stores its values in ``cpu_tensor``."""

    cpu_tensor: torch.Tensor

    @staticmethod
    def __new__(cls, cpu_tensor: torch.Tensor) -> "SimulatedCudaTensor":
        layout = {"strides": cpu_tensor.stride(), "storage_offset": cpu_tensor.storage_offset()}
        # a view must have its base's version counter, which inference tensors lack
        with torch.inference_mode(False):
            tensor = torch.Tensor._make_wrapper_subclass(
                cls, cpu_tensor.shape, dtype=cpu_tensor.dtype, device=META, **layout
            )
        tensor.cpu_tensor = cpu_tensor
        return tensor

    # In C++ it is a meta tensor, as torch's fake tensors are, since device guards would want a
    # driver.
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    is_cpu = property(lambda self: False)

    def __repr__(self, **options: Any) -> str:
        return f"SimulatedCudaTensor({self.cpu_tensor!r})"

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, SimulatedCudaTensor):
            raise RuntimeError("data of a CUDA tensor set to a CPU tensor")
        torch.Tensor.data.__set__(self, value)
        self.cpu_tensor = value.cpu_tensor

    def tolist(self) -> Any:
        return self.cpu_tensor.tolist()

    def numpy(self, **options: Any) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return cpu_results(operator, args, kwargs or {})


class CudaMode(TorchDispatchMode):
    """Redirects tensors created on or copied to a CUDA device to the simulated one."""

    # inside a function of simulated tensors, which creates what it needs where C++ believes them to
    # be: on meta
    on_simulated = False

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return cpu_results(operator, args, kwargs or {})


class DeviceIndexMode(TorchFunctionMode):
    """Reports ``cuda:0`` for ``cuda``, which torch could only resolve with a driver."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.device:
            return function(*args, **kwargs or {})
        args = tuple(map(with_index, args))
        kwargs = {name: with_index(value) for name, value in kwargs.items()} if kwargs else {}
        # no mode sees how torch copies numbers to a device
        if function in FROM_DATA and kwargs.get("device") == CUDA:
            return function(*args, **kwargs | {"device": CPU}).to(CUDA)
        if (
            function == SET_DATA
            and isinstance(args[1], SimulatedCudaTensor)
            and not isinstance(args[0], SimulatedCudaTensor)
        ):
            return torch.utils.swap_tensors(
                args[0], torch.nn.Parameter(args[1], args[0].requires_grad)
            )
        if function in SELECTING:  # a number would become a meta tensor, and lose its value
            args = tuple(
                torch.tensor(value) if isinstance(value, int | float) else value for value in args
            )
        before, CudaMode.on_simulated = (
            CudaMode.on_simulated,
            any(isinstance(value, SimulatedCudaTensor) for value in args),
        )
        try:
            return function(*args, **kwargs)
        finally:
            CudaMode.on_simulated = before


def with_index(value: Any) -> Any:
    return CUDA if isinstance(value, str | torch.device) and str(value) == "cuda" else value


def cpu_results(operator, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Results of the operator, computed on the CPU and placed as CUDA would."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    simulated = {
        id(tensor.cpu_tensor): tensor
        for tensor in tensors
        if isinstance(tensor, SimulatedCudaTensor)
    }
    asked = next(
        (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)), None
    )
    crossing = operator in COPIES or operator.overloadpacket is torch.ops.aten.to
    if not crossing:
        check_devices(operator, args, tensors)
    if operator is torch.ops.aten._fused_sdp_choice.default and simulated:
        return 0  # the math kernel: the others are compiled for one kind of device
    if operator is torch.ops.aten.copy_.default:
        to_cuda = isinstance(args[0], SimulatedCudaTensor)
    else:  # a simulated tensor's own device is meta in C++
        to_cuda = (
            bool(simulated)
            if asked is None
            else asked.type == "cuda"
            or (asked.type == "meta" and (bool(simulated) or CudaMode.on_simulated))
        )
    place = CPU if to_cuda else asked

    def computable(value: Any) -> Any:
        return place if isinstance(value, torch.device) else on_cpu(value)

    results = operator(*tree_map(computable, args), **tree_map(computable, kwargs))
    moved = crossing and asked is not None and to_cuda != bool(simulated)
    if moved and any(results is on_cpu(tensor) for tensor in tensors):
        results = results.clone()

    def place_result(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if to_cuda and id(value) in simulated:  # written in place
            tensor = simulated[id(value)]
            assert tensor.shape == value.shape, f"{operator} changed a shape in place"
            return tensor
        return SimulatedCudaTensor(value) if to_cuda else value

    return tree_map(place_result, results)


def on_cpu(value: Any) -> Any:
    return value.cpu_tensor if isinstance(value, SimulatedCudaTensor) else value


def check_devices(operator, args: tuple, tensors: list[torch.Tensor]) -> None:
    """Raise RuntimeError if a CUDA kernel would refuse an operand on the CPU."""
    if not any(isinstance(tensor, SimulatedCudaTensor) for tensor in tensors):
        return
    if operator in INDEXING and isinstance(args[0], SimulatedCudaTensor):
        tensors = [args[0], *(value for value in args[2:3] if isinstance(value, torch.Tensor))]
    others = [tensor for tensor in tensors if not isinstance(tensor, SimulatedCudaTensor)]
    assert not any(tensor.is_meta for tensor in others), (
        f"{operator} got a number that the simulation has lost"
    )
    if any(tensor.dim() for tensor in others):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({operator})"
        )


DRIVER = {  # what torch asks the driver
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "simulated CUDA device",
    "get_device_capability": lambda device=None: (8, 0),
    "manual_seed_all": lambda seed: None,
    "get_rng_state": lambda device=None: torch.get_rng_state(),
    "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
    "synchronize": lambda device=None: None,
    "empty_cache": lambda: None,
    "mem_get_info": lambda device=None: (8 << 30, 8 << 30),
    "memory_allocated": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
}


@contextmanager
def simulated_cuda() -> Iterator[None]:
    """Make CUDA available: tensors compute on the CPU with its random generator, without streams
    and CUDA kernels.
    """
    with pytest.MonkeyPatch.context() as patch, CudaMode(), DeviceIndexMode():
        for name, answer in DRIVER.items():
            patch.setattr(torch.cuda, name, answer)
        yield
