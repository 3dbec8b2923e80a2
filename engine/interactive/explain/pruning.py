"""Pruning at work on a few weights, and how far methods agree on a whole layer."""

from itertools import product

import pandas as pd
import torch

from engine.config.registry import TECHNIQUES
from engine.config.technique import Technique
from engine.interactive.explain.default import frame, no_levels, picture
from engine.interactive.layer_preview import Look, preview
from engine.interactive.registry import answer
from engine.queries import MaskOverlapQuery
from engine.recipe import Recipe
from engine.results.schema.explanations import Lesson, OverlapRow, RemovedRow
from engine.results.schema.tables import table
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.options import Pruning
from engine.techniques.pruning.unstructured.scores import importance

BEFORE = ", by their size before any training: what training makes of them, a run shows"
ROWS, COLUMNS = 12, 48  # of the layer, from its middle on


@picture.register(Pruning)
@picture.register(LotteryTicket)
def picture_pruning_or_lottery_ticket(asked: Technique, look: Look) -> Lesson:
    """Neighboring weights by value and by importance; of techniques that train, as they are
    before.
    """
    score = importance(look.how, look.weight, *([look.seen] if look.seen else []))
    rows, columns = (
        torch.arange(size)[size // 2 :][:most]
        for size, most in zip(look.weight.shape, (ROWS, COLUMNS), strict=True)
    )
    at, dense = torch.meshgrid(rows, columns, indexing="ij"), look.stored.dense()
    shown = score[at] / score[at].max().clamp_min(1e-38)
    removed = frame(
        RemovedRow,
        row=at[0],
        column=at[1],
        weight=look.weight[at],
        score=shown,
        stored=dense[at],
        stays=dense[at] != 0,
    )
    part = (
        f"{len(removed)} weights, rows {int(rows[0])} to {int(rows[-1])}, columns "
        f"{int(columns[0])} to {int(columns[-1])}"
    )
    return Lesson(RemovedRow, removed, no_levels(), part + (BEFORE if asked.trains else ""))


@answer.register
def answer_mask_overlap(query: MaskOverlapQuery) -> pd.DataFrame:
    """OverlapRow of every two methods that can do what this step does: the same share, scope and
    pattern.
    """
    methods = [how for how in TECHNIQUES.values() if issubclass(how, Pruning) and not how.trains]
    recipe, step = query.recipe.model_dump(mode="json"), query.recipe.steps[-1]
    shared = {
        name: getattr(step, name)
        for name in Pruning.model_fields
        if name != "technique" and hasattr(step, name)
    }
    kept = {}
    for how in methods:
        other = shared | {"technique": how.model_fields["technique"].default}
        look = preview(Recipe.of(recipe | {"steps": [other]}), query.layer)
        kept[how.brief or how.title] = look.stored.dense() != 0
    rows = (
        OverlapRow(one, other, share_of_both(kept[one], kept[other]))
        for one, other in product(kept, kept)
    )
    return table(rows, OverlapRow)


def share_of_both(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one & other).sum() / (one | other).sum().clamp_min(1)).item()
