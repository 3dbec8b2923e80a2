"""Agreement of the pruning methods on one layer."""

from itertools import product

import pandas as pd
import torch

from engine.config.registry import ALL_TECHNIQUES, technique_name
from engine.interactive.layer_preview import preview
from engine.interactive.registry import answer
from engine.queries import MaskOverlapQuery
from engine.recipe import Recipe
from engine.results.schema.explanations import OverlapRow
from engine.results.schema.tables import table


@answer.register
def answer_mask_overlap(query: MaskOverlapQuery) -> pd.DataFrame:
    """OverlapRow of each pair of methods without training, each with the options that all of them
    share: sparsity, scope and pattern of this step.
    """
    methods = [cls for cls in ALL_TECHNIQUES if "mask-overlap" in cls.live_views and not cls.trains]
    options = set.intersection(*(set(cls.model_fields) for cls in methods)) - {"technique"}
    recipe, step = query.recipe.model_dump(mode="json"), query.recipe.steps[-1]
    shared = {name: getattr(step, name) for name in options if hasattr(step, name)}
    masks = {}
    for cls in methods:
        other = shared | {"technique": technique_name(cls)}
        compressed = preview(Recipe.from_dict(recipe | {"steps": [other]}), query.layer)
        masks[cls.brief or cls.title] = compressed.stored.to_dense() != 0
    rows = (
        OverlapRow(one, other, share_of_both(masks[one], masks[other]))
        for one, other in product(masks, masks)
    )
    return table(rows, OverlapRow)


def share_of_both(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one & other).sum() / (one | other).sum().clamp_min(1)).item()
