"""Whole blocks (ShortGPT, Men et al. 2024, arXiv:2403.03853): those go that turn the state that flows through them least."""

from collections.abc import Callable
from typing import Any

import torch

from engine.catalog.structured import Blocks
from engine.errors import PlainError
from engine.results.tables import NAN, StructureRow
from engine.work.calibration.stream import Call, first, hooked, lists_of_blocks
from engine.work.methods.stages import rebuild, survey
from engine.work.rebuilt import Rebuilt, Subject
from engine.work.trial import Trial

BY_NUMBER = "scale_attn_by_inverse_layer_idx"  # GPT-2's option that makes a block compute by its number


def blocks_in(subject: Subject) -> list[str]:
    """The blocks that the state flows through. Raises PlainError where they cannot do without one another."""
    blocks = max(lists_of_blocks(subject.original.model), key=len, default=[])
    convolutions = any(layer.kind == "conv2d" and layer.block in blocks for layer in subject.original.layers)
    if convolutions or len(blocks) < 2:
        why = "its parts are convolutions, each of a width of its own" if convolutions else "it has no list of blocks"
        raise PlainError(f"{subject.folder} has no blocks that could be taken out ({why}); choose another technique.")
    if getattr(subject.original.model.config, BY_NUMBER, False):
        raise PlainError(f"The blocks of {subject.folder} compute by their number ({BY_NUMBER}), so none can be taken out; choose another technique.")
    return blocks


@survey.register
def influences(how: Blocks, subject: Subject) -> dict[str, float]:
    """By block, one minus the mean cosine of the state before and after it, over all tokens but padding (equation 1); NaN in a forecast."""
    blocks = blocks_in(subject)
    return turned(blocks, subject.trial) if subject.trial else dict.fromkeys(blocks, NAN)


@torch.no_grad()
def turned(blocks: list[str], trial: Trial) -> dict[str, float]:
    sums, counts, model = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0), trial.original.model
    where: dict[str, torch.Tensor] = {}

    def looking(name: str) -> Callable:
        def hook(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            cosine = torch.nn.functional.cosine_similarity(Call(args, kwargs).states.float(), first(output).float(), dim=-1)
            seen = cosine[where["mask"]] if "mask" in where else cosine
            sums[name] += seen.double().sum().item()
            counts[name] += seen.numel()

        return hook

    with hooked([model.get_submodule(name).register_forward_hook(looking(name), with_kwargs=True) for name in blocks]):
        for done, batch in enumerate(trial.batches):
            trial.bench.progress("Reading calibration data", done, len(trial.batches))
            if "attention_mask" in batch:
                where["mask"] = batch["attention_mask"].bool().to(trial.original.device)
            trial.logits(batch)
    found = {name: 1 - total / counts[name] for name, total in sums.items()}
    if not all(abs(value) < float("inf") for value in found.values()):
        raise PlainError("The states between blocks become NaN or infinite on the calibration data; compute in float32, or give other data.")
    return found


@rebuild.register
def _(how: Blocks, subject: Subject, known: dict[str, float] | None = None) -> Rebuilt:
    influence = influences(how, subject) if known is None else known
    goes = chosen(how, subject, influence)
    left = [block for block in influence if block not in goes]
    stem = left[0].rpartition(".")[0]
    moved = {block: f"{stem}.{number}" for number, block in enumerate(left)}
    rows = (StructureRow(block, "block", number, score, block not in goes) for number, (block, score) in enumerate(influence.items()))
    return Rebuilt(
        dropped=tuple(goes),
        moved=moved if goes else {},
        config=config_without(goes, list(influence), subject) if goes else {},
        structures=tuple(rows),
    )


def chosen(how: Blocks, subject: Subject, influence: dict[str, float]) -> list[str]:
    """The blocks that go, least influence first; of none, one layer may be skipped."""
    names = {layer.name for layer in subject.original.layers if not layer.tied_to}
    free = [block for block in influence if {name for name in names if name.startswith(f"{block}.")} <= subject.targets]
    if how.count >= len(influence):
        raise PlainError(f"{how.count} of {len(influence)} blocks would leave none; take out {len(influence) - 1} at most.")
    if how.count > len(free):
        raise PlainError(
            f"Only {len(free)} of {len(influence)} blocks may go, since Layers to skip (layers.skip) names layers of the others; lower count to that."
        )
    return sorted(free, key=influence.get)[: how.count]


def config_without(goes: list[str], blocks: list[str], subject: Subject) -> dict[str, Any]:
    """Fields of the configuration that count blocks, or say something of each."""
    left = [number for number, block in enumerate(blocks) if block not in goes]
    fields = subject.original.model.config.to_dict()
    lists = {name: value for name, value in fields.items() if "layer" in name and isinstance(value, list) and len(value) == len(blocks)}
    return {"num_hidden_layers": len(left)} | {name: [value[number] for number in left] for name, value in lists.items()}
