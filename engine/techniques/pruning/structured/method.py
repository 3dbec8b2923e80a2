"""Neurons, heads and channels: score them, choose those that go, and say what stays of every
layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor
from typing import Any

import torch

from engine.calibration import Seen
from engine.calibration.gradient_stats import Slopes
from engine.errors import PlainError
from engine.results.schema.tables import StructureRow
from engine.step.pruning_plan import Cut, Rebuilt, Subject
from engine.techniques.hooks import rebuild, survey
from engine.techniques.pruning.masks import least
from engine.techniques.pruning.structured.channels import channels, convolutional, refuse_others
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.structured.coupled_structures import Family, cuts_of, sizes_in
from engine.techniques.pruning.structured.heads import head_tensors, heads
from engine.techniques.pruning.structured.neurons import neurons
from engine.techniques.pruning.tracing import first_difference, shifted

ORDERS = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}  # of a norm
# what config.json may call their number
NEURON_COUNTS = (
    "intermediate_size",
    "moe_intermediate_size",
    "ffn_dim",
    "n_inner",
    "ffn_hidden_size",
    "hidden_dim",
)  # what config.json may call them
EXACT = 0.005  # of a share: what is rounded by less is not said
Known = dict[str, Seen | Slopes]


@dataclass(frozen=True)
class Scored:
    """A family, and how much each of its structures matters.  (structures,) float32"""

    family: Family
    scores: torch.Tensor


# --- which there are ------------------------------------------------------------------------------


def families_of(how: Structured, subject: Subject) -> list[Family]:
    """Families that may be pruned: none of their layers is skipped. Raises PlainError if the model
    has none.
    """
    convolutions = convolutional(subject)
    what = ("channels" if convolutions else "neurons") if how.what == "auto" else how.what
    if what == "channels":
        refuse_others(subject)
    if convolutions and what != "channels":
        raise PlainError(
            f"{subject.folder} is a convolutional network without {what} to remove; set "
            "Structure (what) to channels."
        )
    try:
        found = {
            "neurons": neurons,
            "channels": channels,
            "heads": lambda subject: heads(subject, how),
        }[what](subject)
    except PlainError:
        raise
    # a model whose operations cannot be traced
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise PlainError(none_found(what, subject)) from error
    if not found:
        raise PlainError(none_found(what, subject))
    layers = {layer.name for layer in subject.original.layers}
    free = [
        family
        for family in found
        if all(part.name in subject.targets or part.name not in layers for part in family.parts)
    ]
    if not free:
        raise PlainError(
            f"Each of the {what} of {subject.folder} is in a layer that Layers to skip "
            "(layers.skip) lists; remove one from the list."
        )
    return free


def none_found(what: str, subject: Subject) -> str:
    if what == "channels":
        return (
            f"Every channel of {subject.folder} runs through a convolution in groups, so none "
            "can go alone; choose another technique."
        )
    return (
        f"No {what} were found in {subject.folder} ({subject.folder.architecture}) that could be "
        "removed without changing what the others "
        "compute; set Structure (what) to another kind, or choose another technique."
    )


def equivalent(subject: Subject, small: Rebuilt, families: list[Family]) -> Rebuilt:
    """The smaller model, which computes what the original does without those structures; of heads,
    with what else belongs to them where it would
    not otherwise. Raises PlainError where it does not in any case.
    """
    probe = shifted(subject)
    differs = first_difference(probe, small) if small.cuts else None
    if differs and families[0].is_heads:
        candidates = (head_tensors(each, small, families) for each in (subject, probe))
        for tensors, probed in zip(*candidates, strict=True):
            if not first_difference(probe, replace(small, set_tensors=probed)):
                return replace(small, set_tensors=tensors)
    if differs:
        why = "the smaller model would compute something else than the original without them"
        if differs.failure:
            why = "this architecture does not compute with fewer of them"
        raise PlainError(
            f"The {families[0].what}s of {subject.folder} ({subject.folder.architecture}) cannot "
            f"be removed: {why} "
            f"({differs}). Set Structure (what) to another kind, or "
            "choose another technique."
        )
    return small


# --- how much they matter -------------------------------------------------------------------------


@survey.register
def scored(how: Structured, subject: Subject) -> list[Scored]:
    """Every family with its scores. A forecast, which has no data, goes by norms."""
    families = families_of(how, subject)
    if how.needs == "nothing" or subject.trial is None:
        return [
            Scored(family, norms(family, weights_in(subject), ORDERS.get(how.score, 2)).cpu())
            for family in families
        ]
    known = subject.trial.knows(
        how.needs, [part.name for family in families for part in family.readers]
    )
    by_data = {"activations": output_sizes, "taylor": loss_changes}[how.score]
    return [
        Scored(family, by_data(family, weights_in(subject), known).cpu()) for family in families
    ]


def weights_in(subject: Subject) -> Callable[[str], torch.Tensor]:
    return lambda name: subject.original.model.get_submodule(name).stored.dense(torch.float32)


def norms(family: Family, weight_of: Callable[[str], torch.Tensor], order: float) -> torch.Tensor:
    """Ln norm of all weights that go with a structure, those of its readers too: the norm of its
    rows' and columns' norms.
    """
    sizes = []
    for part in family.parts:
        if not part.of_norm:
            lines = torch.linalg.vector_norm(
                weight_of(part.name), order, dim=1 if part.side == "outputs" else 0
            )
            sizes.append(lines[part.places.to(lines.device)])
    return torch.linalg.vector_norm(torch.cat(sizes, 1), order, dim=1)


def output_sizes(
    family: Family, weight_of: Callable[[str], torch.Tensor], known: Known
) -> torch.Tensor:
    """|X_j| |W_:j| over a structure's inputs to its readers: Wanda's score of a column
    (arXiv:2306.11695), the root of the squares' sum.
    """
    total = 0.0
    for part in family.readers:
        columns = weight_of(part.name).norm(dim=0) * known_of(part.name, known).rms
        total = total + columns.square()[part.places.to(columns.device)].sum(1)
    return total.sqrt()


def loss_changes(
    family: Family, weight_of: Callable[[str], torch.Tensor], known: Known
) -> torch.Tensor:
    """|sum of w g| over a structure's columns in its readers: the gradient by a gate on its output
    (arXiv:1905.10650, section 2.2).
    """
    total = 0.0
    for part in family.readers:
        columns = (weight_of(part.name) * known_of(part.name, known).mean).sum(0)
        total = total + columns[part.places.to(columns.device)].sum(1)
    return total.abs()


def known_of(name: str, known: Known) -> Seen | Slopes:
    if name not in known:
        raise PlainError(
            f"No calibration data reached {name}, so what it reads cannot be judged; name it "
            "under Layers to skip (layers.skip), or choose by norms."
        )
    return known[name]


# --- which go -------------------------------------------------------------------------------------


@rebuild.register
def rebuild_structured(
    how: Structured, subject: Subject, known: list[Scored] | None = None
) -> Rebuilt:
    every = scored(how, subject) if known is None else known
    stays = (
        chosen_globally(how, every)
        if how.scope == "global"
        else [chosen(how, each) for each in every]
    )
    if how.share and all(each.all() for each in stays):
        raise PlainError(nothing_goes(how, every))
    pairs = [(each.family, mask) for each, mask in zip(every, stays, strict=True)]
    cuts = cuts_of(pairs, sizes_in(subject))
    rows = tuple(
        row for each, mask in zip(every, stays, strict=True) for row in structure_rows(each, mask)
    )
    said = {
        "notes": notes_on(how, pairs),
        "structures": rows,
        "homes": homes([each.family for each in every]),
    }
    small = Rebuilt(cuts, uniform=uniform_config(subject, cuts, pairs), **said)
    return equivalent(subject, small, [each.family for each in every])


def wanted(share: float, count: int) -> int:
    """Number of structures to remove, rounded to the nearest integer, halves up."""
    return floor(share * count + 0.5)


def chosen(how: Structured, each: Scored) -> torch.Tensor:
    """Mask of the structures of a family to keep.  (structures,) bool"""
    goes = wanted(how.share, len(each.scores))
    if goes == len(each.scores):
        raise PlainError(
            f"A share of {how.share:.0%} would leave no {each.family.what} in "
            f"{each.family.block}, which has {goes}; lower the share."
        )
    return ~least(each.scores, goes)


def chosen_globally(how: Structured, every: list[Scored]) -> list[torch.Tensor]:
    """Masks chosen among all families; the best structure of each is always kept."""
    count = sum(len(each.scores) for each in every)
    goes = wanted(how.share, count)
    if goes > count - len(every):
        what = every[0].family.what
        raise PlainError(
            f"A share of {how.share:.0%} would remove {goes} of {count} {what}s, and each of "
            f"{len(every)} layers keeps one; lower the share."
        )
    compared = [comparable(how, each.scores) for each in every]
    for scores in compared:
        scores[scores.argmax()] = torch.inf
    return list((~least(torch.cat(compared), goes)).split([len(scores) for scores in compared]))


def comparable(how: Structured, scores: torch.Tensor) -> torch.Tensor:
    """Between layers: norms as multiples of the layer's mean; a change of the loss is one
    everywhere.
    """
    return scores.clone() if how.score == "taylor" else scores / scores.mean().clamp_min(1e-30)


def nothing_goes(how: Structured, every: list[Scored]) -> str:
    most = (
        max(len(each.scores) for each in every)
        if how.scope == "layer"
        else sum(len(each.scores) for each in every)
    )
    return (
        f"A share of {how.share:.0%} of {most} {every[0].family.what}s is less than half of one, "
        "so nothing would be removed; "
        f"set it to {0.5 / most:.0%} or more."
    )


# --- what is said of it ---------------------------------------------------------------------------


def structure_rows(each: Scored, stays: torch.Tensor) -> list[StructureRow]:
    family = each.family
    return [
        StructureRow(family.block, family.what, family.first + index, score, kept)
        for index, (score, kept) in enumerate(
            zip(each.scores.tolist(), stays.tolist(), strict=True)
        )
    ]


def homes(families: list[Family]) -> dict[str, str]:
    """Block of each layer or norm in a family: that of its outputs, otherwise that of its
    inputs.
    """
    sides = ("inputs", "outputs")
    return {
        part.name: family.block
        for side in sides
        for family in families
        for part in family.parts
        if part.side == side
    }


def notes_on(how: Structured, pairs: list[tuple[Family, torch.Tensor]]) -> dict[str, str]:
    """Notes by layer on the remaining structures, and where the share could not be met."""
    counts: dict[tuple[str, str], list[int]] = {}
    for family, stays in pairs:
        for place in {(part.name, part.side) for part in family.parts}:
            left, of = counts.get(place, (0, 0))
            counts[place] = [left + int(stays.sum()), of + family.size]
    what, said = pairs[0][0].what, {}
    for (name, side), (left, of) in sorted(counts.items(), key=lambda item: item[0][1] == "inputs"):
        rounded = how.scope == "layer" and abs(1 - left / of - how.share) > EXACT
        words = (
            f"{left} of {of} {what}s left" if side == "outputs" else f"reads {left} of {of} {what}s"
        )
        said.setdefault(name, []).append(
            words + (f" (asked to lose {how.share:.0%}, and only whole ones go)" if rounded else "")
        )
    return {name: "; ".join(words) for name, words in said.items()}


def uniform_config(
    subject: Subject, cuts: dict[str, Cut], pairs: list[tuple[Family, torch.Tensor]]
) -> dict[str, Any]:
    """Fields of config.json that would say the shapes, where all layers are alike; the writer tries
    whether they do.
    """
    (family, stays), counts = pairs[0], {int(stays.sum()) for _, stays in pairs}
    if family.what == "channel":
        return stage_widths(subject, cuts)
    if len(counts) > 1 or stays.all():
        return {}
    if family.what == "neuron":
        return dict.fromkeys(NEURON_COUNTS, int(stays.sum()))
    reader = family.readers[0]
    width = reader.places.shape[1] // family.heads
    groups = (
        {}
        if family.keeps_keys
        else dict.fromkeys(("num_key_value_heads", "num_kv_heads"), int(stays.sum()))
    )
    # of multi-head latent attention the width of another part
    known = getattr(subject.original.model.config.get_text_config(), "head_dim", width)
    return {
        "num_attention_heads": len(cuts[reader.name].columns) // width,
        **groups,
        **({"head_dim": width} if known == width else {}),
    }


def stage_widths(subject: Subject, cuts: dict[str, Cut]) -> dict[str, Any]:
    """A ResNet's: of its first convolution, and of the last of each stage."""
    kernels = [layer for layer in subject.original.layers if layer.kind == "conv2d"]
    rows = {
        layer.name: cuts[layer.name].shape(*layer.matrix_shape)[0]
        if layer.name in cuts
        else layer.shape[0]
        for layer in kernels
    }
    stages = {layer.block: rows[layer.name] for layer in kernels if layer.block}
    return {"embedding_size": rows[kernels[0].name], "hidden_sizes": list(stages.values())}
