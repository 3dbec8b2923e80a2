"""Layers that hold their weight as stored and unpack it while they run. They replace the model's
own layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from engine.models.layer_kinds import Kind, layer_kind
from engine.models.layers import is_compressible, kind_of, shape_of, weight_matrix
from engine.tensors.weights import DenseWeight, StoredWeight


class Unpacking(nn.Module):
    """Layer whose weight is ``stored``; its bias and attributes are the original layer's."""

    def __init__(self, stored: StoredWeight, original: nn.Module, compute: torch.dtype):
        super().__init__()
        self.stored, self.compute = stored, compute
        # the dense weight, kept while many batches are processed
        self.unpacked: torch.Tensor | None = None
        # its factors, likewise, if the layer runs as several smaller ones
        self.chain: tuple[Any, ...] | None = None
        self.kernel = shape_of(original)
        bias = getattr(original, "bias", None)
        self.bias = (
            None if bias is None else nn.Parameter(bias.detach().to(compute), requires_grad=False)
        )
        for name, value in vars(original).items():  # sizes and settings that some models read
            if not name.startswith("_") and name not in vars(self):
                setattr(self, name, value)

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight, output channels first, created each time unless it is
        ``unpacked``.
        """
        return (
            self.stored.to_dense(self.compute).view(self.kernel)
            if self.unpacked is None
            else self.unpacked
        )

    def active_factors(self) -> tuple[Any, ...]:
        """Smaller layers that run one after the other; empty if the weight is one matrix
        or kernel.
        """
        if self.unpacked is not None:
            return ()
        return self.weight_factors() if self.chain is None else self.chain

    def weight_factors(self) -> tuple[Any, ...]:
        return self.stored.factors(self.compute)


class UnpackingLinear(Unpacking):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = self.stored.quantized_inputs(inputs)
        *first, last = self.active_factors() or (self.weight,)
        for factor in first:
            inputs = F.linear(inputs, factor)
        return F.linear(inputs, last, self.bias)


class UnpackingConv1D(UnpackingLinear):
    """GPT-2's Conv1D, whose weight is transposed; ``stored`` is (out, in_) as for other layers."""


class UnpackingConv2d(Unpacking):
    """Convolution with any of torch's options.

    Padding that numbers cannot express (asymmetric, or not with zeros) is applied to the input
    first. Quantizing inputs (``quantized_inputs``) commutes with it. A 1-D convolution runs as a
    2-D one of height 1.
    """

    def __init__(self, stored: StoredWeight, original: nn.Conv1d | nn.Conv2d, compute: torch.dtype):
        super().__init__(stored, original, compute)
        self.one_axis = original.weight.ndim == 3
        padding, self.margins = paddings(original)
        axes = {"stride": original.stride, "padding": padding, "dilation": original.dilation}
        neutral = {"stride": 1, "padding": 0, "dilation": 1}
        self.config = {
            name: (neutral[name], *value) if self.one_axis else tuple(value)
            for name, value in axes.items()
        }
        self.config["groups"] = original.groups
        # (out, in_, height, width)
        self.image_kernel = (*self.kernel[:2], 1, self.kernel[2]) if self.one_axis else self.kernel

    def image(self, inputs: torch.Tensor) -> torch.Tensor:
        """Input with two spatial axes and padding. (examples, in_, height, width)"""
        if self.margins:
            inputs = F.pad(
                inputs,
                self.margins,
                "constant" if self.padding_mode == "zeros" else self.padding_mode,
            )
        return inputs.unsqueeze(-2) if self.one_axis else inputs

    def signal(self, outputs: torch.Tensor) -> torch.Tensor:
        """Output with as many axes as the input."""
        return outputs.squeeze(-2) if self.one_axis else outputs

    def patches(self, inputs: torch.Tensor) -> torch.Tensor:
        """Input patches that the kernel multiplies. (vectors, in_ x height x width)"""
        config = {name: self.config[name] for name in ("stride", "padding", "dilation")}
        return F.unfold(self.image(inputs), self.image_kernel[2:], **config).mT.flatten(0, 1)

    def weight_factors(self) -> tuple[Any, ...]:
        return (
            self.stored.conv_chain(self.image_kernel, self.config, self.compute)
            if self.config["groups"] == 1
            else ()
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = self.stored.quantized_inputs(self.image(inputs))
        *first, (last, config) = self.active_factors() or (
            (self.weight.view(self.image_kernel), self.config),
        )
        for kernel, options in first:
            inputs = F.conv2d(inputs, kernel, **options)
        return self.signal(F.conv2d(inputs, last, self.bias, **config))


def paddings(original: nn.Conv1d | nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding of a convolution as numbers, and padding to apply beforehand as for ``F.pad``; the
    latter is empty if numbers suffice.
    """
    none, margins = (
        (0,) * len(original.kernel_size),
        zip(original.dilation, original.kernel_size, strict=True),
    )
    if original.padding == "valid":
        return none, ()
    totals = (
        [dilation * (size - 1) for dilation, size in margins]
        if original.padding == "same"
        else [2 * side for side in original.padding]
    )
    if original.padding_mode == "zeros" and not any(total % 2 for total in totals):
        return tuple(total // 2 for total in totals), ()
    return none, tuple(
        side for total in reversed(totals) for side in (total // 2, total - total // 2)
    )


class UnpackingEmbedding(Unpacking):
    def __init__(self, stored: StoredWeight, original: nn.Embedding, compute: torch.dtype):
        super().__init__(stored, original, compute)
        self.scale = layer_kind(original).scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        read = self.read(ids)
        return read if self.scale == 1 else read * torch.tensor(self.scale, dtype=read.dtype)

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        if isinstance(self.stored, DenseWeight) and self.unpacked is None:
            return F.embedding(ids, self.stored.weight).to(self.compute)
        if factors := self.active_factors():
            right, left = factors
            return F.linear(F.embedding(ids, left), right.T)
        return F.embedding(ids, self.weight)


UNPACKING: dict[Kind, type[Unpacking]] = {
    "linear": UnpackingLinear,
    "conv1d": UnpackingConv1D,
    "convolution1d": UnpackingConv2d,
    "conv2d": UnpackingConv2d,
    "embedding": UnpackingEmbedding,
}


def install_packed_layers(
    model: nn.Module,
    stored: dict[str, StoredWeight],
    compute: torch.dtype,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Replace the named layers by unpacking ones that compute in ``compute`` on ``device``; changes
    and returns ``model``.

    Layers that are not named keep their stored weights and are unpacked too, so a 16-bit model
    needs no second copy in 32 bits. Tied layers share one stored weight. All other tensors (norms,
    positions) are converted.
    """
    stored_by_id: dict[int, StoredWeight] = {}
    for name, module in list(model.named_modules()):
        if is_compressible(module):
            key = id(module.weight)
            if key not in stored_by_id:
                stored_by_id[key] = (
                    stored.get(name)
                    or DenseWeight(tuple(weight_matrix(module).shape), weight_matrix(module))
                ).to(device)
            parent, _, child = name.rpartition(".")
            setattr(
                model.get_submodule(parent),
                child,
                UNPACKING[kind_of(module)](stored_by_id[key], module, compute),
            )
    # transformers reads the model's device and dtype from its first parameter
    if next(model.parameters(), None) is None:
        model.register_parameter("placement", nn.Parameter(torch.empty(0), requires_grad=False))
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(compute)
    return model.to(device).eval()


def dense_bytes(model: nn.Module) -> int:
    """Bytes of the layers' weights if all were unpacked."""
    return sum(
        torch.Size(layer.kernel).numel() * layer.compute.itemsize
        for layer in unpacking_layers(model)
    )


def unpacking_layers(model: nn.Module) -> list[Unpacking]:
    return [module for module in model.modules() if isinstance(module, Unpacking)]


@contextmanager
def keep_unpacked(model: nn.Module) -> Iterator[None]:
    """Keep the weights of a model or block dense while it runs many times, and the factors of
    layers that run as factors.
    """
    layers = unpacking_layers(model)
    for layer in layers:
        layer.chain = layer.weight_factors()
        layer.unpacked = None if layer.chain else layer.weight
    try:
        yield
    finally:
        for layer in layers:
            layer.unpacked = layer.chain = None
