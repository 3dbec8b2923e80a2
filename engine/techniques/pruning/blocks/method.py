"""Whole blocks (ShortGPT, Men et al. 2024, arXiv:2403.03853): those go that turn the state that
flows through them least.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch

from engine.calibration.stream import Call, first, hooked, lists_of_blocks
from engine.errors import PlainError
from engine.events import ProgressEvent
from engine.models.layers import OF_IMAGES, layers_of
from engine.models.loading import changed_config, skeleton
from engine.results.schema.tables import NAN, StructureRow
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Rebuilt, Subject
from engine.techniques.hooks import forecast_notes, rebuild, survey
from engine.techniques.pruning.blocks.config import Blocks
from engine.techniques.pruning.tracing import first_difference, shifted

BLOCKS_DIFFER = (
    "The model's blocks differ in size, so the size that is left depends on which of them the "
    "calibration data chooses."
)
# how many blocks at the beginning have no experts
DENSE_FIRST = ("first_k_dense_replace", "num_dense_layers")
# lists of the numbers of blocks without experts, or with some, or for images
NUMBERED = ("mlp_only_layers", "moe_layers", OF_IMAGES)
# how many blocks at the end have keys and values of an earlier one
SHARED_LAST = "num_kv_shared_layers"
# lists of a number for each block, as are those with "layer" in their names
PER_BLOCK = ("activation_sparsity_pattern", "intermediate_size")
# GPT-2's option that makes a block compute by its number
BY_NUMBER = "scale_attn_by_inverse_layer_idx"


def blocks_in(subject: Subject) -> list[str]:
    """The blocks that the state flows through. Raises PlainError where they cannot do without one
    another.
    """
    blocks = max(lists_of_blocks(subject.original.model), key=len, default=[])
    convolutions = any(
        layer.kind == "conv2d" and layer.block in blocks for layer in subject.original.layers
    )
    if convolutions or len(blocks) < 2:
        why = (
            "its parts are convolutions, each of a width of its own"
            if convolutions
            else "it has no list of blocks"
        )
        raise PlainError(
            f"{subject.folder} has no removable blocks ({why}); choose another technique."
        )
    if getattr(subject.original.model.config.get_text_config(), BY_NUMBER, False):
        raise PlainError(
            f"The blocks of {subject.folder} depend on their number ({BY_NUMBER}), so none "
            "can be removed; choose another technique."
        )
    return blocks


@survey.register
def influences(how: Blocks, subject: Subject) -> dict[str, float]:
    """Block influence: one minus the mean cosine of the state before and after it, over all tokens
    but padding (equation 1); NaN in a forecast.
    """
    blocks = blocks_in(subject)
    return turned(blocks, subject.trial) if subject.trial else dict.fromkeys(blocks, NAN)


@torch.no_grad()
def turned(blocks: list[str], trial: Trial) -> dict[str, float]:
    sums, counts, model = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0), trial.original.model
    where: dict[str, torch.Tensor] = {}

    def looking(name: str) -> Callable[..., Any]:
        def hook(
            module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            if Call(args, kwargs).states.shape != first(output).shape:
                raise PlainError(
                    f"{trial.bench.folder} has no removable blocks, because they differ in "
                    "width; choose another technique."
                )
            cosine = torch.nn.functional.cosine_similarity(
                Call(args, kwargs).states.float(), first(output).float(), dim=-1
            )
            seen = cosine[where["mask"]] if "mask" in where else cosine
            sums[name] += seen.double().sum().item()
            counts[name] += seen.numel()

        return hook

    with hooked(
        [
            model.get_submodule(name).register_forward_hook(looking(name), with_kwargs=True)
            for name in blocks
        ]
    ):
        for done, batch in enumerate(trial.batches):
            trial.bench.progress(ProgressEvent("reading-calibration", done, len(trial.batches)))
            if "attention_mask" in batch:
                where["mask"] = batch["attention_mask"].bool().to(trial.original.device)
            trial.logits(batch)
    found = {
        name: 1 - total / counts[name] if counts[name] else NAN for name, total in sums.items()
    }
    if not all(abs(found[name]) < float("inf") for name in blocks if counts[name]):
        raise PlainError(
            "The states between blocks become NaN or infinite on the calibration data; "
            "compute in float32, or give other data."
        )
    return found


@rebuild.register
def rebuild_blocks(how: Blocks, subject: Subject, known: dict[str, float] | None = None) -> Rebuilt:
    influence = influences(how, subject) if known is None else known
    small, probe = without(chosen(how, subject, influence), influence, subject), shifted(subject)
    if small.dropped and first_difference(probe, small):
        needed = {
            block
            for block in influence
            if first_difference(probe, without([block], influence, subject))
        }
        small = without(chosen(how, subject, influence, needed), influence, subject)
        if differs := first_difference(probe, small):
            raise PlainError(
                f"{how.count} blocks of {subject.folder} ({subject.folder.architecture}) cannot "
                "be removed: the smaller "
                "model would differ from the original without them "
                f"({differs}). Lower Blocks removed (count), or choose "
                "another technique."
            )
    return small


@forecast_notes.register
def forecast_notes_blocks(config: Blocks, subject: Subject) -> tuple[str, ...]:
    return (BLOCKS_DIFFER,) if differ_in_size(subject) else ()


def differ_in_size(subject: Subject) -> bool:
    """Return True if the remaining size depends on which blocks are removed."""
    shapes: dict[str, list[Any]] = {block: [] for block in blocks_in(subject)}
    for layer in subject.original.layers:
        if layer.block in shapes and not layer.tied_to:
            shapes[layer.block].append((layer.name.removeprefix(layer.block), layer.shape))
    return len(set(map(tuple, shapes.values()))) > 1


def without(goes: list[str], influence: dict[str, float], subject: Subject) -> Rebuilt:
    """Return the model without these blocks; later blocks move up."""
    left = [block for block in influence if block not in goes]
    stem = left[0].rpartition(".")[0]
    moved = {block: f"{stem}.{number}" for number, block in enumerate(left)}
    rows = (
        StructureRow(block, "block", number, score, block not in goes)
        for number, (block, score) in enumerate(influence.items())
    )
    config = config_without(goes, list(influence), subject) if goes else {}
    small = Rebuilt(
        dropped=tuple(goes), moved=moved if goes else {}, config=config, structures=tuple(rows)
    )
    refuse_unlike(small, subject)
    return small


def refuse_unlike(small: Rebuilt, subject: Subject) -> None:
    """Check configurations that determine by block number which blocks have experts.

    Raises PlainError if the remaining blocks would be assigned wrongly.
    """
    if not (small.dropped and any(layer.reached < 1 for layer in subject.original.layers)):
        return
    due = {after.name: after.shape for _, after in small.layers(subject.original.layers)}
    if due != {
        layer.name: layer.shape
        for layer in layers_of(
            skeleton(subject.folder, changed_config(subject.folder, small.config))
        )
    }:
        raise PlainError(
            f"Some blocks of {subject.folder} have experts and others have none, by a rule of "
            "its configuration that the blocks left would break; "
            "choose another number of blocks, or another technique."
        )


def chosen(
    how: Blocks, subject: Subject, influence: dict[str, float], needed: Collection[str] = ()
) -> list[str]:
    """Select the blocks to remove, least influence first; none may leave a layer without its
    inputs.

    ``needed``: blocks that others depend on, such as a first block without a norm.
    """
    names = {layer.name for layer in subject.original.layers if not layer.tied_to}
    free = [
        block
        for block in influence
        if {name for name in names if name.startswith(f"{block}.")} <= subject.targets
    ]
    if how.count >= len(influence):
        raise PlainError(
            f"{how.count} of {len(influence)} blocks would leave none; take out "
            f"{len(influence) - 1} at most."
        )
    removable = [block for block in free if block not in needed]
    if not removable and len(free) == len(influence):
        raise PlainError(
            f"No block of {subject.folder} ({subject.folder.architecture}) can be removed, since "
            "the others would compute something else without it; "
            "choose another technique."
        )
    if len(removable) < how.count <= len(free):
        raise PlainError(
            f"Only {len(removable)} of {len(influence)} blocks of {subject.folder} can be "
            "removed, because others depend on "
            f"{', '.join(needed)}; lower Blocks removed (count) to that."
        )
    if how.count > len(free):
        raise PlainError(
            f"Only {len(free)} of {len(influence)} blocks may go, since Layers to skip "
            "(layers.skip) names layers of the others; lower count to that."
        )
    # no text passes by a block that may go, so none of these is NaN
    return sorted(removable, key=influence.get)[: how.count]


def config_without(goes: list[str], blocks: list[str], subject: Subject) -> dict[str, Any]:
    """Fields of the configuration that count blocks, or say something of each."""
    left = [number for number, block in enumerate(blocks) if block not in goes]
    fields = subject.original.model.config.get_text_config().to_dict()
    lists = lists_by_block(fields, len(blocks))
    counted = {"num_hidden_layers": len(left)} | {
        name: [value[number] for number in left] for name, value in lists.items()
    }
    # of a backbone, which may give any block's states
    if (stages := fields.get("stage_names")) and len(stages) == len(blocks) + 1:
        counted |= {
            "stage_names": stages[: len(left) + 1],
            "out_features": stages[len(left) : len(left) + 1],
            "out_indices": [len(left)],
        }
    return counted | of_experts(fields, left)


def lists_by_block(fields: dict[str, Any], blocks: int) -> dict[str, list[Any]]:
    """Fields with an entry for each block."""
    named = {name: value for name, value in fields.items() if "layer" in name or name in PER_BLOCK}
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, list) and len(value) == blocks
    }


def of_experts(fields: dict[str, Any], left: list[int]) -> dict[str, Any]:
    """Fields that say which blocks have experts, or share keys and values, when only the blocks
    numbered ``left`` stay.
    """
    counts = {
        name: sum(number < fields[name] for number in left)
        for name in DENSE_FIRST
        if isinstance(fields.get(name), int)
    }
    if shared := fields.get(SHARED_LAST):
        counts[SHARED_LAST] = sum(number >= fields["num_hidden_layers"] - shared for number in left)
    lists = {name: fields[name] for name in NUMBERED if isinstance(fields.get(name), list)}
    return counts | {
        name: [place for place, number in enumerate(left) if number in numbers]
        for name, numbers in lists.items()
    }
