"""Tables for charts and comparisons, computed from tables of runs without side effects."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from engine.recipe import Recipe
from engine.results.schema.record import RunRecord, Scores, Summary
from engine.results.schema.run_tables import Tables
from engine.results.schema.tables import LayerRow, table

TRADE_OFF = (
    "run",
    "label",
    "model",
    "size_bytes",
    "compression",
    "bits_per_weight",
    "bits_per_parameter",
    "quality",
    "quality_name",
    "best",
    "group",
)
COMPARISON = (
    "run",
    "label",
    "model",
    "technique",
    "size_bytes",
    "compression",
    "bits_per_weight",
    "bits_per_parameter",
    "quality_name",
    "quality_before",
    "quality_after",
    "quality_change",
    "quality_change_share",
    "agreement",
    "seconds",
    "device",
    "fingerprint",
)


def pareto_front(
    frame: pd.DataFrame, cost: str, gain: str, higher_is_better: bool = True
) -> pd.Series:
    """True for rows of the Pareto front: no other row costs at most as much and gains at least as
    much, with one of both better. Equal rows are treated alike. A row without cost or gain is not
    on the front.
    """
    is_measured = frame[cost].notna() & frame[gain].notna()
    signed = frame[gain] if higher_is_better else -frame[gain]
    best_by_cost = signed[is_measured].groupby(frame[cost][is_measured]).max()  # by cost, ascending
    front = best_by_cost[
        ~(best_by_cost <= best_by_cost.cummax().shift())
    ]  # more than any cheaper row
    return (is_measured & (signed == frame[cost].map(front))).rename("best")


# --- runs -----------------------------------------------------------------------------------------


def trade_off(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Quality against size: a row per finished run, and one "Uncompressed" (run "") per model and
    protocol. ``best`` marks the Pareto front among runs of the same model under the same protocol,
    which have the same ``group``.
    """
    finished = measured_runs(records)
    groups = [comparison_key(run.summary) for run in finished]
    originals = {
        group: original_point(run.summary) for group, run in zip(groups, finished, strict=True)
    }
    rows = [*originals.values(), *(compressed_point(run) for run in finished)]
    frame, every = pd.DataFrame(rows, columns=list(TRADE_OFF[:-2])), [*originals, *groups]
    return frame.assign(
        best=pareto_fronts_by_group(frame, every),
        group=[list(originals).index(group) for group in every],
    )


def measured_runs(records: Iterable[RunRecord]) -> list[RunRecord]:
    return [run for run in records if run.status == "done" and run.summary]


def comparison_key(summary: Summary) -> str:
    """Key that is equal for comparable numbers."""
    return "\n".join([summary.model, summary.revision, summary.protocol.model_dump_json()])


def original_point(summary: Summary) -> dict[str, Any]:
    return point("", "Uncompressed", summary, summary.baseline)


def compressed_point(run: RunRecord) -> dict[str, Any]:
    return point(run.id, run.label, run.summary, run.summary.result)


def point(run: str, label: str, summary: Summary, scores: Scores) -> dict[str, Any]:
    name = quality_name(summary)
    return {
        "run": run,
        "label": label,
        "model": summary.model,
        "size_bytes": scores.size_bytes,
        "compression": scores.compression,
        "bits_per_weight": scores.bits_per_weight,
        "bits_per_parameter": quality(scores, "bits_per_parameter"),
        "quality": quality(scores, name),
        "quality_name": name,
    }


def quality_name(summary: Summary) -> str:
    """Name of the task's main metric: perplexity (lower is better) or accuracy (higher
    is better).
    """
    return "accuracy" if summary.baseline.perplexity is None else "perplexity"


def quality(scores: Scores, name: str) -> float:
    value = getattr(scores, name)
    return float("nan") if value is None else value


def pareto_fronts_by_group(frame: pd.DataFrame, groups: list[str]) -> pd.Series:
    best = pd.Series(False, index=frame.index)
    for _, rows in frame.groupby(pd.Series(groups, index=frame.index, dtype=object)):
        best[rows.index] = pareto_front(
            rows,
            "size_bytes",
            "quality",
            higher_is_better=rows["quality_name"].iloc[0] == "accuracy",
        )
    return best


def comparison(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row per finished run: its settings, duration and scores. Missing numbers are NaN."""
    return pd.DataFrame(
        [comparison_row(run, run.summary) for run in measured_runs(records)],
        columns=list(COMPARISON),
    )


def comparison_row(run: RunRecord, summary: Summary) -> dict[str, Any]:
    """``quality_change`` is after - before in the metric's unit, ``quality_change_share`` is
    relative to before.
    """
    before, after = (
        quality(scores, quality_name(summary)) for scores in (summary.baseline, summary.result)
    )
    result = summary.result
    return {
        "run": run.id,
        "label": run.label,
        "model": summary.model,
        "technique": " → ".join(step.title for step in run.recipe.steps) or "Uncompressed",
        "size_bytes": result.size_bytes,
        "compression": result.compression,
        "bits_per_weight": result.bits_per_weight,
        "bits_per_parameter": quality(result, "bits_per_parameter"),
        "quality_name": quality_name(summary),
        "quality_before": before,
        "quality_after": after,
        "quality_change": after - before,
        "quality_change_share": (after - before) / before if before else float("nan"),
        "agreement": quality(result, "agreement"),
        "seconds": summary.seconds,
        "device": summary.device,
        "fingerprint": summary.protocol.fingerprint,
    }


def why_not_comparable(records: Iterable[RunRecord]) -> str:
    """Reason why the runs are not comparable; empty if they are."""
    summaries = [run.summary for run in measured_runs(records)]
    differing = [
        f"{what} ({', '.join(distinct)})"
        for what, values in conditions(summaries).items()
        if len(distinct := distinct_texts(values)) > 1
    ]
    if not differing:
        return ""
    return (
        "These runs are not comparable: they differ in "
        f"{' and in '.join(differing[:2])}; choose runs measured the same way."
    )


def conditions(summaries: list[Summary]) -> dict[str, list[Any]]:
    """Conditions that must be equal for numbers to be comparable, with the value in each run."""
    protocols = [summary.protocol for summary in summaries]
    models = [summary.model for summary in summaries]
    return {
        "model": models,
        "the model's revision": []
        if len(set(models)) > 1
        else [summary.revision[:12] for summary in summaries],
        "task": [protocol.task for protocol in protocols],
        "data": [protocol.data for protocol in protocols],
        "the data's content": [protocol.fingerprint[:12] for protocol in protocols]
        if len({p.data for p in protocols}) == 1
        else [],
        "context": [protocol.context for protocol in protocols],
        "number of windows": [protocol.windows for protocol in protocols],
        "number of predicted tokens": [protocol.targets for protocol in protocols],
        "number of examples": [protocol.samples for protocol in protocols],
        "compute dtype": [protocol.compute_dtype for protocol in protocols],
        "measure": [protocol.measure for protocol in protocols],
    }


def distinct_texts(values: list[Any]) -> list[str]:
    """Distinct values in the order of appearance, including None: a protocol without a context
    differs from one with it.
    """
    return list(dict.fromkeys("none" if value is None else str(value) for value in values))


def latest_similar_run(records: Iterable[RunRecord], recipe: Recipe) -> RunRecord | None:
    """The latest finished run of the same technique on the same model and task, whose duration
    predicts the next one's.
    """
    steps = [step.technique for step in recipe.steps]
    similar = (
        record
        for record in records
        if record.summary
        and (record.recipe.model, record.recipe.task, record.recipe.device)
        == (recipe.model, recipe.task, recipe.device)
    )
    return next(
        (
            record
            for record in similar
            if [step.technique for step in record.recipe.steps] == steps and steps
        ),
        None,
    )


# --- layers ---------------------------------------------------------------------------------------


def worst_layer(layers: pd.DataFrame) -> str:
    """The layer with the largest output error, or relative error if outputs were not measured;
    empty if none was compressed.
    """
    for column in ("output_error", "relative_error"):
        errors = pd.to_numeric(layers[column]).dropna()
        if len(errors):
            return str(layers["name"][errors.idxmax()])
    return ""


def layers_side_by_side(tables_by_label: Mapping[str, Tables]) -> pd.DataFrame:
    """Layers of several runs in one table, with the run's ``label`` as the first column."""
    parts = [
        tables.layers.assign(label=label)
        for label, tables in tables_by_label.items()
        if len(tables.layers)
    ]
    frame = (
        pd.concat(parts, ignore_index=True)
        if parts
        else table((), LayerRow).assign(label=pd.Series(dtype=object))
    )
    return frame[["label", *(name for name in frame if name != "label")]]


# --- notes ----------------------------------------------------------------------------------------

MAX_NAMED_LAYERS = 12  # number of layers named with a note


def noted_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Notes on layers, grouped by text: kept, note, count and names (the first NAMED); kept layers
    first.
    """
    noted = layers[(layers.note != "") & (layers.tied_to == "")]
    groups = noted.groupby([noted.technique == "", "note"], sort=False)
    rows = [
        (kept, note, len(group), shortened_names(group["name"].tolist()))
        for (kept, note), group in groups
    ]
    return pd.DataFrame(rows, columns=["kept", "note", "count", "names"]).sort_values(
        "kept", ascending=False, kind="stable", ignore_index=True
    )


def shortened_names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED_LAYERS} more" if len(names) > MAX_NAMED_LAYERS else ""
    return ", ".join(names[:MAX_NAMED_LAYERS]) + more


def most_flattened(surfaces: pd.DataFrame) -> str:
    """The input (SurfaceRow) whose largest value was reduced most by scales; without scales, the
    most prominent one; "" if there is none.
    """
    if surfaces.empty:
        return ""
    by_version = (
        surfaces.groupby(["layer", "version"], sort=False).largest.agg(["max", "median"]).unstack()
    )
    if "scaled" in by_version["max"]:
        return str((by_version["max"].original / by_version["max"].scaled).idxmax())
    return str(
        (by_version["max"].original / by_version["median"].original.clip(lower=1e-30)).idxmax()
    )


def entropy_bits(levels: pd.DataFrame) -> float:
    """Entropy of one layer's codes in bits: the lower bound of any lossless code. Rows of LevelRow
    for one layer
    """
    shares = levels.weights[levels.weights > 0] / levels.weights.sum()
    return float((shares * np.log2(1 / shares)).sum())
