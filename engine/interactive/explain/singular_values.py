"""Singular values of one layer."""

import pandas as pd

from engine.interactive.layer_preview import cached_preview
from engine.interactive.registry import answer
from engine.queries import SingularValuesQuery
from engine.results.schema.tables import table
from engine.techniques.implementations import diagnostics
from engine.techniques.low_rank.tables import SingularRow


@answer.register
def answer_singular_values(query: SingularValuesQuery) -> pd.DataFrame:
    compressed = cached_preview(query.recipe, query.layer)
    found = diagnostics(
        compressed.config, query.layer, compressed.weight, compressed.stored, compressed.stats
    ).singular
    return pd.concat(found, ignore_index=True) if found else table((), SingularRow)
