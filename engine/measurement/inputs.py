"""Sample of the inputs of each layer, taken while calibration data passes through the uncompressed
model.
"""

from collections.abc import Callable

import torch
from torch import nn

from engine.evaluation.measured import inputs_on_device
from engine.models.packed_modules import UnpackingConv2d, UnpackingLinear

ROWS = 256  # input vectors kept for each layer
EXAMPLES = 8  # windows, texts or images they are sampled from


@torch.inference_mode()
def sampled_inputs(
    model: nn.Module,
    batches: list[dict[str, torch.Tensor]],
    device: torch.device,
    on_batch_done: Callable[[], object] = lambda: None,
) -> dict[str, torch.Tensor]:
    """Up to ROWS input vectors of every linear and convolutional layer, evenly distributed over the
    batches. name -> (rows, in_)

    ``on_batch_done`` is called after each batch and may raise to stop.
    """
    rows_per_batch = max(1, -(-ROWS // max(1, len(batches))))
    samples: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, args, name=name: samples.setdefault(name, []).append(
                sampled_vectors(module, args[0], rows_per_batch)
            )
        )
        for name, module in model.named_modules()
        if isinstance(module, UnpackingLinear)
        or (isinstance(module, UnpackingConv2d) and module.config["groups"] == 1)
    ]
    try:
        for batch in batches:
            model(**inputs_on_device(batch, model, device))
            on_batch_done()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts)[:ROWS] for name, parts in samples.items()}


def evenly_spaced_examples(batches: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """EXAMPLES evenly spaced examples of all batches."""
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    selected = set(range(0, sum(sizes), max(1, sum(sizes) // EXAMPLES)))
    first, batches_of_selected = 0, []
    for batch, size in zip(batches, sizes, strict=True):
        rows = [row for row in range(size) if first + row in selected]
        batches_of_selected += (
            [{name: values[rows] for name, values in batch.items()}] if rows else []
        )
        first += size
    return batches_of_selected


def sampled_vectors(module: nn.Module, inputs: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` evenly spaced input vectors of a batch; patches for a convolution. (count, in_)"""
    rows = module.patches(inputs) if isinstance(module, UnpackingConv2d) else inputs.flatten(0, -2)
    chosen = torch.linspace(0, len(rows) - 1, min(count, len(rows)), device=rows.device).long()
    half = rows[chosen].to("cpu", torch.float16)
    # an outlier may exceed the range of float16
    return half if half.isfinite().all() else rows[chosen].to("cpu", torch.float32)
