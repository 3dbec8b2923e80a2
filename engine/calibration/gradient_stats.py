"""Gradients of the loss with respect to every weight on calibration data. They need the whole
model, so its weights are dense while gradients are computed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.errors import PlainError
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.measured import inputs_on_device
from engine.events import ProgressEvent, Report
from engine.models.packed_modules import keep_unpacked, unpacking_layers
from engine.models.routed_layers import RoutedLayer, routed_layers

UNREACHED = "no calibration token was routed to it, so its weights are ranked by magnitude"


@dataclass
class GradientStats:
    """Gradient statistics of one layer's weight over the examples, (out, in_) float32."""

    mean: torch.Tensor
    # mean squared gradient of the examples: the diagonal of the empirical Fisher information
    square: torch.Tensor
    warnings: list[str] = field(default_factory=list)

    def first_rows(self, rows: int) -> "GradientStats":
        """Statistics of the first rows."""
        return GradientStats(self.mean[:rows], self.square[:rows], self.warnings)


def accumulate_gradients(
    model: nn.Module,
    names: Iterable[str],
    batches: list[Batch],
    device: torch.device,
    progress: Report,
) -> dict[str, GradientStats]:
    """One backward pass for each example. Raises PlainError if a gradient is not finite."""
    modules = {name: model.get_submodule(name) for name in names}
    examples = [
        {key: value[row : row + 1] for key, value in batch.items()}
        for batch in batches
        for row in range(len(next(iter(batch.values()))))
    ]
    sums = {
        name: GradientStats(*(torch.zeros(module.stored.shape, device=device) for _ in range(2)))
        for name, module in modules.items()
    }
    with torch.inference_mode(False), torch.enable_grad(), keep_unpacked(model):
        leaves = {
            name: module.weight.detach().clone().requires_grad_()
            for name, module in modules.items()
        }
        leaf_of_weight = {id(modules[name].stored): leaf for name, leaf in leaves.items()}
        for module in unpacking_layers(model):  # tied layers share one tensor
            module.unpacked = leaf_of_weight.get(id(module.stored), module.unpacked)
        for done, example in enumerate(examples):
            progress(ProgressEvent("computing-gradients", done, len(examples)))
            loss = example_loss(model, example, device)
            for name, gradient_of_leaf in zip(
                leaves,
                torch.autograd.grad(loss, list(leaves.values()), allow_unused=True),
                strict=True,
            ):
                if gradient_of_leaf is not None:
                    flat = gradient_of_leaf.float().reshape(sums[name].mean.shape)
                    sums[name].mean.add_(flat, alpha=1 / len(examples))
                    sums[name].square.addcmul_(flat, flat, value=1 / len(examples))
    for name, gradient in sums.items():
        if not gradient.square.isfinite().all():
            raise PlainError(
                f"The loss has no gradient for {name} on the calibration data (NaN or infinite); "
                "compute in float32, or give other data."
            )
    found = {name: gradient for name, gradient in sums.items() if gradient.square.any()}
    found |= replacement_stats(routed_layers(model, sums), found, sums)
    if not found:
        raise PlainError(
            "The loss on the calibration data has no gradient for any of these weights; give "
            "other data, or a technique that needs no gradients."
        )
    return found


def replacement_stats(
    layers: dict[str, RoutedLayer], found: dict[str, GradientStats], sums: dict[str, GradientStats]
) -> dict[str, GradientStats]:
    """Gradients of experts without any example: equal for all weights and as large as those of the
    block's other experts, so that ranking by them is ranking by magnitude.
    """
    stats_by_layer = {}
    for name in (name for name in layers if name not in found):
        siblings = [
            found[other]
            for other, routed in layers.items()
            if other in found and routed.stack == layers[name].stack
        ]
        if siblings:
            mean = sum(expert.mean.square().mean().item() for expert in siblings) / len(siblings)
            square = sum(expert.square.mean().item() for expert in siblings) / len(siblings)
            like = sums[name].mean
            stats_by_layer[name] = GradientStats(
                torch.full_like(like, mean**0.5), torch.full_like(like, square), [UNREACHED]
            )
    return stats_by_layer


def example_loss(model: nn.Module, example: Batch, device: torch.device) -> torch.Tensor:
    """Cross-entropy of the next tokens, of the masked tokens (``labels``), or of a classifier's own
    prediction, because calibration data need not be labeled.
    """
    logits = model(**inputs_on_device(example, model, device)).logits.float()
    if "labels" in example:
        # -100 at unmasked positions, which torch ignores
        return cross_entropy(logits[0], example["labels"][0].to(device))
    if "input_ids" in example and logits.ndim == 3:
        return cross_entropy(logits[0, :-1], example["input_ids"][0, 1:].to(device))
    return cross_entropy(logits, logits.argmax(-1))
