"""Table of sizes and scores after each step of a recipe, for each split."""

import pandas as pd

SIZES = ("parameters", "size_bytes", "bits_per_weight", "bits_per_parameter")
SCORES = ("perplexity", "accuracy", "precision", "recall", "f1", "agreement")
STEP_SCORE_COLUMNS = ("step", "technique", "split", *SIZES, "compression", *SCORES)


def step_scores(stages: pd.DataFrame) -> pd.DataFrame:
    """Table with a row for each split and step, the original first, from rows of StageRow; scores
    that were not measured are NaN.
    """
    scores = (
        stages[stages.split != ""]
        .pivot(index=["split", "step", "technique"], columns="measure", values="value")
        .reset_index()
    )
    sizes = stages[stages.split == ""].pivot(index="step", columns="measure", values="value")
    table = scores.join(sizes.reindex(columns=list(SIZES)), on="step")
    first = sizes.size_bytes.get(0, float("nan")) if "size_bytes" in sizes else float("nan")
    # missing in older runs
    table["bits_per_parameter"] = table.bits_per_parameter.fillna(
        8 * table.size_bytes / original_parameters(sizes)
    )
    return sorted_steps(
        table.assign(compression=first / table.size_bytes).reindex(
            columns=list(STEP_SCORE_COLUMNS)
        ),
        list(stages.split.unique()),
    )


def original_parameters(sizes: pd.DataFrame) -> float:
    """Parameters of the original model."""
    return sizes.parameters.get(0, float("nan")) if "parameters" in sizes else float("nan")


def sorted_steps(table: pd.DataFrame, splits: list[str]) -> pd.DataFrame:
    """Splits in their order, the recipe's main split first."""
    table = table.rename_axis(columns=None)
    return table.sort_values(
        ["split", "step"],
        key=lambda column: column.map(splits.index) if column.name == "split" else column,
        ignore_index=True,
    )


def step_quality(stages: pd.DataFrame) -> pd.DataFrame:
    """Rows with the task's main score as ``quality``, and ``removed``, the share of the previous
    step's bytes.
    """
    table = step_scores(stages)
    name = "perplexity" if table.accuracy.isna().all() else "accuracy"
    removed = 1 - table.size_bytes / table.groupby("split").size_bytes.shift()
    return table.assign(quality_name=name, quality=table[name], removed=removed)
