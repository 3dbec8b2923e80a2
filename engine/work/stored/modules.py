"""Layers that hold their weight as stored and make it dense only while they run. They take the place of the model's own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from engine.work.layers import Kind, compressible, kind_of, matrix, shape_of
from engine.work.stored.weights import Dense, Stored


class Unpacking(nn.Module):
    """A layer whose weight is ``stored``; its bias and everything else is the original layer's."""

    def __init__(self, stored: Stored, original: nn.Module, compute: torch.dtype):
        super().__init__()
        self.stored, self.compute = stored, compute
        self.unpacked: torch.Tensor | None = None  # the dense weight, while many batches go through one after the other
        self.chain: tuple | None = None  # its factors likewise, where it runs as several smaller layers
        self.kernel = shape_of(original)
        bias = getattr(original, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(compute), requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight, output channels first, made anew each time unless it is ``unpacked``."""
        return self.stored.dense(self.compute).view(self.kernel) if self.unpacked is None else self.unpacked

    def running(self) -> tuple:
        """What it runs as, one after the other, where it runs as several smaller layers; nothing where its weight is one matrix or kernel."""
        if self.unpacked is not None:
            return ()
        return self.made() if self.chain is None else self.chain

    def made(self) -> tuple:
        return self.stored.factors(self.compute)


class UnpackingLinear(Unpacking):
    def __init__(self, stored: Stored, original: nn.Module, compute: torch.dtype):
        super().__init__(stored, original, compute)
        self.out_features, self.in_features = self.kernel  # which some models look up

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = self.stored.received(inputs)
        *first, last = self.running() or (self.weight,)
        for factor in first:
            inputs = F.linear(inputs, factor)
        return F.linear(inputs, last, self.bias)


class UnpackingConv1D(UnpackingLinear):
    """GPT-2's layer: kept transposed by its own class, here as (out, in_) like the others."""

    def __init__(self, stored: Stored, original: Conv1D, compute: torch.dtype):
        super().__init__(stored, original, compute)
        self.nf = original.nf


class UnpackingConv2d(Unpacking):
    def __init__(self, stored: Stored, original: nn.Conv2d, compute: torch.dtype):
        super().__init__(stored, original, compute)
        self.how = {"stride": original.stride, "padding": original.padding, "dilation": original.dilation, "groups": original.groups}
        self.out_channels, self.in_channels, self.kernel_size = self.kernel[0], self.kernel[1] * original.groups, self.kernel[2:]
        self.stride, self.padding, self.dilation, self.groups = self.how.values()  # which some models look up

    def made(self) -> tuple:
        return self.stored.links(self.kernel, self.how, self.compute) if self.how["groups"] == 1 else ()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = self.stored.received(inputs)
        *first, (last, how) = self.running() or ((self.weight, self.how),)
        for kernel, its in first:
            inputs = F.conv2d(inputs, kernel, **its)
        return F.conv2d(inputs, last, self.bias, **how)


class UnpackingEmbedding(Unpacking):
    def __init__(self, stored: Stored, original: nn.Embedding, compute: torch.dtype):
        super().__init__(stored, original, compute)
        self.num_embeddings, self.embedding_dim = original.num_embeddings, original.embedding_dim
        self.scale = float(getattr(original, "embed_scale", 1.0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        read = self.read(ids)
        return read if self.scale == 1 else read * torch.tensor(self.scale, dtype=read.dtype)

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        if isinstance(self.stored, Dense) and self.unpacked is None:
            return F.embedding(ids, self.stored.weight).to(self.compute)
        if factors := self.running():
            right, left = factors
            return F.linear(F.embedding(ids, left), right.T)
        return F.embedding(ids, self.weight)


UNPACKING: dict[Kind, type[Unpacking]] = {
    "linear": UnpackingLinear, "conv1d": UnpackingConv1D, "conv2d": UnpackingConv2d, "embedding": UnpackingEmbedding,
}  # fmt: skip


def install(model: nn.Module, stored: dict[str, Stored], compute: torch.dtype, device: torch.device | str = "cpu") -> nn.Module:
    """Replace the named layers by unpacking ones that compute in ``compute`` on ``device``; changes and returns ``model``.

    Layers not named stay as they are stored and are unpacked too, so a 16-bit model needs no second copy in 32 bits;
    tied layers share one stored weight. Everything else (norms, positions) is converted.
    """
    held: dict[int, Stored] = {}
    for name, module in list(model.named_modules()):
        if compressible(module):
            key = id(module.weight)
            if key not in held:
                held[key] = (stored.get(name) or Dense(tuple(matrix(module).shape), matrix(module))).to(device)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, UNPACKING[kind_of(module)](held[key], module, compute))
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(compute)
    return model.to(device).eval()


def dense_bytes(model: nn.Module) -> int:
    """What the layers' weights would take if all were unpacked."""
    return sum(torch.Size(layer.kernel).numel() * layer.compute.itemsize for layer in unpacking_layers(model))


def unpacking_layers(model: nn.Module) -> list[Unpacking]:
    return [module for module in model.modules() if isinstance(module, Unpacking)]


@contextmanager
def unpacked_once(model: nn.Module) -> Iterator[None]:
    """The weights of a model or block stay dense while it runs many times, and so do factors where layers run as these."""
    layers = unpacking_layers(model)
    for layer in layers:
        layer.chain = layer.made()
        layer.unpacked = None if layer.chain else layer.weight
    try:
        yield
    finally:
        for layer in layers:
            layer.unpacked = layer.chain = None
