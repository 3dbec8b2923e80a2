"""Weights and activations in whole numbers, static or dynamic; SmoothQuant's scales."""

import torch

from engine.calibration.activation_stats import Seen
from engine.calibration.folding import Fold
from engine.techniques.hooks import blueprint, compress, scales_for, sketch
from engine.techniques.quantization.activations.config import Activations, SmoothQuant
from engine.techniques.quantization.grid import stored_grid
from engine.techniques.quantization.observers import observed
from engine.tensors.activations import WithActivations, code_range, qparams

ALPHAS = 21


@compress.register
def compress_activations(how: Activations, weight: torch.Tensor, seen: Seen) -> WithActivations:
    return WithActivations(
        tuple(weight.shape),
        stored_grid(weight, how.rounding()),
        how.activation_bits,
        how.scheme,
        how.per,
        **static_range(how, seen),
    )


def static_range(how: Activations, seen: Seen) -> dict[str, torch.Tensor]:
    """Scale and zero code of the layer's inputs, (1,) each; nothing where they are found while the
    model runs.
    """
    if how.mode == "dynamic":
        return {}
    low, high = (torch.tensor([value], device=seen.device) for value in observed(seen, how))
    return dict(
        zip(("scale", "zero"), qparams(low, high, how.activation_bits, how.scheme), strict=True)
    )


@blueprint.register
def blueprint_activations(how: Activations, shape: tuple[int, int]) -> WithActivations:
    fixed = {"scale": sketch(1), "zero": sketch(1)} if how.mode == "static" else {}
    return WithActivations(
        shape, blueprint(how.rounding(), shape), how.activation_bits, how.scheme, how.per, **fixed
    )


@scales_for.register
def scales_for_smooth_quant(
    how: SmoothQuant, fold: Fold, weights: list[torch.Tensor], seen: Seen
) -> tuple[torch.Tensor, list[tuple[float, float]]] | None:
    if not fold.from_norm:
        return None
    alphas = torch.linspace(0, 1, ALPHAS).tolist() if how.automatic else [how.alpha]
    tried = [(alpha, smoothing(weights, seen, alpha)) for alpha in alphas]
    searched = [(alpha, expected_error(weights, seen, scales, how)) for alpha, scales in tried]
    best = min(range(len(alphas)), key=lambda place: searched[place][1])
    return tried[best][1], searched


def smoothing(weights: list[torch.Tensor], seen: Seen, alpha: float) -> torch.Tensor:
    """SmoothQuant, equation 4; channels that are never active stay as they are.  (in_,)"""
    largest = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    scales = seen.abs_max.clamp_min(1e-5).pow(alpha) / largest.clamp_min(1e-5).pow(1 - alpha)
    return torch.where(seen.abs_max > 0, scales.clamp_min(1e-5), 1.0)


def expected_error(
    weights: list[torch.Tensor], seen: Seen, scales: torch.Tensor, how: SmoothQuant
) -> float:
    """Squared output error for one input, if rounding errors were uniform and independent: those of
    activations and of weights.
    """
    highest = code_range(how.activation_bits, "symmetric")[1]
    step = (seen.abs_max / scales).max() / highest
    # a lower bound of the inputs' second moments, enough to compare alphas
    second = (seen.abs_mean / scales).square().sum()
    total = 0.0
    for weight in weights:
        scaled = weight * scales
        weight_steps = scaled.abs().amax(1) / (2 ** (how.weight_bits - 1) - 1)
        total += (
            step.square() / 12 * scaled.square().sum() + second * weight_steps.square().sum() / 12
        ).item()
    return total
