"""Integer weights and activations, with static or dynamic ranges, and SmoothQuant's scales."""

import torch

from engine.calibration.activation_stats import InputStats
from engine.calibration.folding import Fold
from engine.techniques.hooks import compress, input_scales, meta_tensor, storage_plan
from engine.techniques.quantization.activations.config import Activations, SmoothQuant
from engine.techniques.quantization.activations.observers import observed_range
from engine.techniques.quantization.grid import round_to_grid
from engine.tensors.activations import WithQuantizedInputs, code_range, qparams

ALPHAS = 21


@compress.register
def compress_activations(
    config: Activations, weight: torch.Tensor, stats: InputStats
) -> WithQuantizedInputs:
    return WithQuantizedInputs(
        tuple(weight.shape),
        round_to_grid(weight, config.rounding()),
        config.activation_bits,
        config.scheme,
        config.per,
        **static_range(config, stats),
    )


def static_range(config: Activations, stats: InputStats) -> dict[str, torch.Tensor]:
    """Scale and zero code of the layer's inputs, (1,) each; None for dynamic ranges."""
    if config.mode == "dynamic":
        return {}
    low, high = (
        torch.tensor([value], device=stats.device) for value in observed_range(stats, config)
    )
    return dict(
        zip(
            ("scale", "zero"),
            qparams(low, high, config.activation_bits, config.scheme),
            strict=True,
        )
    )


@storage_plan.register
def storage_plan_activations(config: Activations, shape: tuple[int, int]) -> WithQuantizedInputs:
    fixed = {"scale": meta_tensor(1), "zero": meta_tensor(1)} if config.mode == "static" else {}
    return WithQuantizedInputs(
        shape,
        storage_plan(config.rounding(), shape),
        config.activation_bits,
        config.scheme,
        config.per,
        **fixed,
    )


@input_scales.register
def input_scales_smooth_quant(
    config: SmoothQuant, fold: Fold, weights: list[torch.Tensor], stats: InputStats
) -> tuple[torch.Tensor, list[tuple[float, float]]] | None:
    if not fold.from_norm:
        return None
    alphas = torch.linspace(0, 1, ALPHAS).tolist() if config.automatic else [config.alpha]
    tried = [(alpha, smoothing_scales(weights, stats, alpha)) for alpha in alphas]
    searched = [(alpha, expected_error(weights, stats, scales, config)) for alpha, scales in tried]
    best = min(range(len(alphas)), key=lambda index: searched[index][1])
    return tried[best][1], searched


def smoothing_scales(weights: list[torch.Tensor], stats: InputStats, alpha: float) -> torch.Tensor:
    """SmoothQuant, equation 4; scales of channels without activations are 1. (in_,)"""
    largest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    scales = stats.abs_max.clamp_min(1e-5).pow(alpha) / largest.clamp_min(1e-5).pow(1 - alpha)
    return torch.where(stats.abs_max > 0, scales.clamp_min(1e-5), 1.0)


def expected_error(
    weights: list[torch.Tensor], stats: InputStats, scales: torch.Tensor, config: SmoothQuant
) -> float:
    """Squared output error for one input, assuming uniform and independent rounding errors of
    activations and weights.
    """
    highest = code_range(config.activation_bits, "symmetric")[1]
    step = (stats.abs_max / scales).max() / highest
    # lower bound of the inputs' second moments, sufficient for comparing alphas
    second = (stats.abs_mean / scales).square().sum()
    total = 0.0
    for weight in weights:
        scaled = weight * scales
        weight_steps = scaled.abs().amax(1) / (2 ** (config.weight_bits - 1) - 1)
        total += (
            step.square() / 12 * scaled.square().sum() + second * weight_steps.square().sum() / 12
        ).item()
    return total
