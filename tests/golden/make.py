"""Make every golden with the reference implementations, in an environment of their own (see
README.md beside this file).

PATH_OF_THAT_ENVIRONMENT/bin/python tests/golden/make.py

Weights and inputs are drawn here and stored with what each reference made of them, so that a test
needs nothing but the file.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from bitsandbytes import functional as bitsandbytes
from compressed_tensors.quantization import (
    ActivationOrdering,
    QuantizationArgs,
    QuantizationStrategy,
)
from compressed_tensors.quantization.utils import calculate_qparams
from hqq.core.quantize import Quantizer
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.modifiers.pruning.sparsegpt.sgpt_sparsify import sparsify_weight as sparsegpt
from llmcompressor.modifiers.pruning.wanda.wanda_sparsify import sparsify_weight as wanda
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.observers import Observer
from onnxruntime.quantization.calibrate import HistogramCollector
from safetensors.torch import save_file
from torch.ao.quantization import observer as torch_ao

HERE = Path(__file__).parent
Tensors = dict[str, torch.Tensor]


def seeded_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Values that float16 holds exactly, so that a file can be half as large.  float32"""
    return torch.randn(shape, generator=seeded_generator(seed)).half().float()


def inputs_of(count: int, width: int) -> torch.Tensor:
    """Input vectors of which some channels are loud and many go together.  (count, width)
    float32
    """
    mixed = normal(count, width // 2, seed=1) @ normal(width // 2, width, seed=2) / width**0.5
    loud = (0.7 * normal(width, seed=3)).exp()
    return (mixed * loud + 0.1 * normal(count, width, seed=4)).half().float()


def gptq() -> Tensors:
    """llm-compressor's ``quantize_weight`` on its own scales, rounded to float16 as they would be
    stored.
    """
    weight, inputs = normal(16, 256, seed=5), inputs_of(320, 256)
    kept = {"weight": weight.half(), "inputs": inputs.half()}
    for bits, symmetric, group in (
        (b, s, g) for b, s in ((4, True), (3, True), (4, False)) for g in (32, 128, 0)
    ):
        for order in (None, ActivationOrdering.WEIGHT):
            args = QuantizationArgs(
                num_bits=bits,
                symmetric=symmetric,
                actorder=order,
                group_size=group or None,
                strategy=QuantizationStrategy.GROUP if group else QuantizationStrategy.CHANNEL,
            )
            groups = weight.unflatten(1, (-1, group or 256))
            scales, zeros = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
            stored = scales.half().float()
            hessian = 2 * inputs.T @ inputs / len(inputs)
            rounded, _, _ = quantize_weight(
                weight[None].clone(),
                hessian[None],
                stored[None],
                zeros[None].to(torch.int8),
                None,
                args,
                blocksize=128,
            )
            codes = (
                rounded[0].unflatten(1, (-1, group or 256)) / stored[..., None]
                + zeros[..., None].float()
                + 2 ** (bits - 1)
            )
            name = (
                f"{bits}-{group}-{'symmetric' if symmetric else 'asymmetric'}-"
                f"{'ordered' if order else 'plain'}"
            )
            kept |= {
                f"{name}.codes": codes.round().to(torch.uint8).flatten(1),
                f"{name}.scales": scales,
            }
            kept |= (
                {}
                if symmetric
                else {f"{name}.zeros": (zeros.float() + 2 ** (bits - 1)).to(torch.uint8)}
            )
    return kept


def smoothquant() -> Tensors:
    """llm-compressor's scales for two layers with one input. Inputs come with both signs: it takes
    max - min where the paper has max |x|.
    """
    half = inputs_of(64, 48)
    layers = [torch.nn.Linear(48, rows, bias=False) for rows in (24, 40)]
    for seed, layer in enumerate(layers):
        layer.weight.data = normal(*layer.weight.shape, seed=10 + seed) * 0.1
    inputs = torch.cat([half, -half])
    kept = {
        "inputs": inputs.half(),
        "first": layers[0].weight.detach().clone(),
        "second": layers[1].weight.detach().clone(),
    }
    for alpha in (0.25, 0.5, 0.8):
        config = SmoothQuantModifier(smoothing_strength=alpha, mappings=[])
        kept[f"scales-{alpha}"] = config._calculate_smoothing_scales(
            layers, inputs.amax(0) - inputs.amin(0)
        ).detach()
    return kept


def observers() -> Tensors:
    """Lowest and highest value that each observer chooses after twelve batches."""
    batches = normal(12, 48, 32, seed=20) * (1 + normal(12, 1, 1, seed=21).abs())
    batches[:, 0, 0] *= 6  # outliers
    batches = batches.half().float()
    kept = {"batches": batches.half()}
    for name, made in {
        "min-max": torch_ao.MinMaxObserver,
        "moving-average": torch_ao.MovingAverageMinMaxObserver,
    }.items():
        watching = made(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
        for batch in batches:
            watching(batch)
        kept[f"torch.{name}"] = torch.stack([watching.min_val, watching.max_val])
        scale, zero = watching.calculate_qparams()
        kept |= {f"torch.{name}.scale": scale, f"torch.{name}.zero": zero}
    histogram = torch_ao.HistogramObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    for batch in batches:
        histogram(batch)
    kept["torch.mse"] = torch.stack(histogram._non_linear_param_search())
    for name, called in {
        "min-max": "static_minmax",
        "moving-average": "minmax",
        "mse": "memoryless_mse",
    }.items():
        args = QuantizationArgs(
            num_bits=8, symmetric=False, strategy=QuantizationStrategy.TENSOR, observer=called
        )
        watching = Observer.load_from_registry(called, base_name="input", args=args)
        for batch in [batches.flatten(0, 1)] if name == "mse" else batches:
            watching.update_statistics_from_observed(batch.reshape(1, 1, -1))
        kept[f"llmcompressor.{name}"] = torch.stack(
            [watching.min_vals, watching.max_vals]
        ).flatten()
    return kept | {
        f"onnxruntime.{name}": onnxruntime(batches, *config) for name, config in COLLECTED.items()
    }


# method, symmetric, bins, levels, percentile: as many bins and levels on either side of zero as our
# own observers have
COLLECTED = {
    "percentile-symmetric": ("percentile", True, 2048, 255, 99.9),
    "percentile-asymmetric": ("percentile", False, 2048, 255, 99.9),
    "entropy": ("entropy", True, 4097, 255, 0),
}


def onnxruntime(batches: torch.Tensor, *config: object) -> torch.Tensor:
    """The range of onnxruntime's histogram collector, the one behind its PercentileCalibrater and
    EntropyCalibrater.
    """
    collector = HistogramCollector(*config, scenario="same")
    collector.collect({"input": [np.ascontiguousarray(batches.numpy())]})
    low, high = (float(end) for end in collector.compute_collection_result()["input"][:2])
    return torch.tensor([low, high])


def hqq() -> Tensors:
    """The hqq package's default solver. Down columns it takes every (out / group)-th row into one
    group.
    """
    weight = normal(64, 128, seed=30) * 0.02
    kept = {"weight": weight}
    for bits in (2, 3, 4, 8):
        for axis in (1, 0):
            codes, meta = Quantizer.quantize(
                weight, nbits=bits, group_size=32, axis=axis, bitpack=False, device="cpu"
            )
            kept |= {
                f"{bits}-axis{axis}.codes": codes.to(torch.uint8),
                f"{bits}-axis{axis}.scales": meta["scale"],
                f"{bits}-axis{axis}.zeros": meta["zero"],
            }
    return kept


def four_and_eight_bits() -> Tensors:
    """bitsandbytes' codes and absmax."""
    weight = normal(24, 160, seed=40)
    kept = {"weight": weight.half()}
    for format in ("nf4", "fp4"):
        codes, state = bitsandbytes.quantize_4bit(weight, blocksize=64, quant_type=format)
        kept |= {f"{format}.codes": codes.flatten(), f"{format}.absmax": state.absmax}
        codes, state = bitsandbytes.quantize_4bit(
            weight, blocksize=64, quant_type=format, compress_statistics=True
        )
        kept |= {
            f"{format}-double.absmax": state.absmax,
            f"{format}-double.nested": state.state2.absmax,
            f"{format}-double.offset": state.offset.reshape(1),
        }
    codes, absmax, _ = bitsandbytes.int8_vectorwise_quant(weight.half())
    return kept | {"int8.codes": codes, "int8.absmax": absmax}


def pruning() -> Tensors:
    """llm-compressor's SparseGPT and Wanda, unstructured and N:M. Its N is how many go, which is as
    many as stay in these patterns.
    """
    layer = torch.nn.Linear(256, 16, bias=False)
    layer.weight.data, inputs = normal(16, 256, seed=50), inputs_of(320, 256)
    kept = {"weight": layer.weight.detach().half(), "inputs": inputs.half()}
    for name, sparsity, gone, of in (
        ("half", 0.5, 0, 0),
        ("third", 0.3, 0, 0),
        ("2:4", 0.5, 2, 4),
        ("4:8", 0.5, 4, 8),
    ):
        hessian = 2 * inputs.T @ inputs / len(inputs)
        kept[f"sparsegpt.{name}"] = sparsegpt(
            layer, {layer: hessian}, sparsity, gone, of, 128, 0.01, False
        )[1].detach()
        kept[f"wanda.{name}"] = (
            wanda(layer, {layer: inputs.square().mean(0)}, sparsity, gone, of) != 0
        )
    return kept


GOLDENS = {
    "gptq": (gptq, ("llmcompressor", "compressed-tensors", "torch")),
    "smoothquant": (smoothquant, ("llmcompressor", "torch")),
    "observers": (observers, ("llmcompressor", "onnxruntime", "torch")),
    "hqq": (hqq, ("hqq", "torch")),
    "pruning": (pruning, ("llmcompressor", "torch")),
    "bitsandbytes": (four_and_eight_bits, ("bitsandbytes", "torch")),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (make, packages) in GOLDENS.items():
        tensors = {key: value.contiguous() for key, value in make().items()}
        made_with = ", ".join(f"{package} {version(package)}" for package in packages)
        save_file(tensors, HERE / f"{name}.safetensors", metadata={"made with": made_with})
        print(f"{name}: {made_with}")
