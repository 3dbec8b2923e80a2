"""How the model stood after each step of a recipe, as one table: sizes, and what was measured in each split."""

import pandas as pd

SIZES = ("parameters", "size_bytes", "bits_per_weight")
SCORES = ("perplexity", "accuracy", "precision", "recall", "f1", "agreement")
STANDINGS = ("step", "technique", "split", *SIZES, "compression", *SCORES)


def standings(stages: pd.DataFrame) -> pd.DataFrame:
    """From rows of StageRow: a row for each split and step, the original first; what was not measured is NaN."""
    scores = stages[stages.split != ""].pivot(index=["split", "step", "technique"], columns="measure", values="value").reset_index()
    sizes = stages[stages.split == ""].pivot(index="step", columns="measure", values="value")
    table = scores.join(sizes.reindex(columns=list(SIZES)), on="step")
    first = sizes.size_bytes.get(0, float("nan")) if "size_bytes" in sizes else float("nan")
    return in_order(table.assign(compression=first / table.size_bytes).reindex(columns=list(STANDINGS)), list(stages.split.unique()))


def in_order(table: pd.DataFrame, splits: list[str]) -> pd.DataFrame:
    """Splits as they were measured, the one that a run is judged by first."""
    table = table.rename_axis(columns=None)
    return table.sort_values(["split", "step"], key=lambda column: column.map(splits.index) if column.name == "split" else column, ignore_index=True)


def step_by_step(stages: pd.DataFrame) -> pd.DataFrame:
    """The same with one quality, that which the task is judged by, and with ``removed``: a share of what the step before had left."""
    table = standings(stages)
    name = "perplexity" if table.accuracy.isna().all() else "accuracy"
    removed = 1 - table.size_bytes / table.groupby("split").size_bytes.shift()
    return table.assign(quality_name=name, quality=table[name], removed=removed)
