"""Results of a finished run: numbers before and after, and one view at a time."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from engine.errors import PlainError
from engine.results.analysis.runs import worst_layer
from engine.results.schema.record import RunRecord, Scores
from engine.results.schema.run_tables import Tables
from pages.formatting.numbers import change, count, duration, megabytes, percent, two_decimals
from pages.widgets.glossary_help import meaning
from pages.widgets.model_picker import short_name
from pages.widgets.queries import literal_markdown, show_errors, stop_on_error
from pages.widgets.runs.notes import show_notes
from pages.widgets.runs.result_views import available_views, view_notes
from pages.widgets.runs.view_registry import RunView
from pages.widgets.state import session


def show_results(record: RunRecord, key: str) -> None:
    with stop_on_error():
        tables = session().store.tables(record.id)
    show_run(record, tables, key)


def show_run(record: RunRecord, tables: Tables, key: str) -> None:
    st.markdown(f"### {literal_markdown(record.label)}")
    st.caption(f"{literal_markdown(short_name(record.recipe.model))} · run {record.id}")
    if record.summary is None:
        raise PlainError(
            f"Run {record.id} is marked as done but has no results; run its recipe again, or "
            "delete it."
        )
    with show_errors(f"The summary of run {record.id}"):
        headline(record, tables)
    show_notes(tables.layers)
    for note in [*record.summary.notes, *([record.message] if record.message else [])]:
        st.warning(literal_markdown(note))
    views = available_views(record, tables)
    first = default_view(views, record)
    chosen = (
        st.pills(
            "View", list(views), default=first, key=f"{key}-view", label_visibility="collapsed"
        )
        or first
    )
    with show_errors(f"This view of run {record.id}"):
        views[chosen].draw(record, tables, f"{key}-{record.id}")
        for note in view_notes(record, chosen):
            st.caption(literal_markdown(note))


def default_view(views: dict[str, RunView], record: RunRecord) -> str:
    """Title of the default view: steps of a pipeline, curve of a training, otherwise layers."""
    if "Steps" in views and len(record.recipe.steps) > 1:
        return "Steps"
    return next((title for title, view in views.items() if view.opens_first), "Layers")


def headline(record: RunRecord, tables: Tables) -> None:
    """Draw the main numbers with their changes."""
    before, after = record.summary.baseline, record.summary.result
    size, quality, bits, worst = st.columns([6, 6, 8, 8])  # the last one shows a layer's name
    smaller = f"{after.compression:.2f}x, from {megabytes(before.size_bytes)}"
    metric(size, "Size of the files", megabytes(after.size_bytes), smaller, meaning("size_bytes"))
    quality_metric(quality, before, after)
    compressed = f"{after.bits_per_weight:.2f} per compressed weight"
    about = (
        f"{meaning('bits_per_parameter')}\n\nPer compressed weight: {meaning('bits_per_weight')}"
    )
    metric(bits, "Bits per parameter", two_decimals(after.bits_per_parameter), compressed, about)
    if tables.verdicts.empty or after.agreement is None:
        worst_metric(worst, tables)
    else:
        metric(
            worst,
            "Same answer as its teacher",
            percent(after.agreement),
            "agreement",
            meaning("agreement"),
        )
    st.caption(literal_markdown(protocol_line(record)))


def worst_metric(column: DeltaGenerator, tables: Tables) -> None:
    layer = worst_layer(tables.layers)
    row = tables.layers[tables.layers.name == layer]
    error = row.output_error.fillna(row.relative_error).iloc[0] if layer else float("nan")
    metric(
        column,
        "Most affected layer",
        percent(error),
        literal_markdown(layer.removeprefix("model.")) or "none",
        f"{literal_markdown(layer)}. {meaning('output_error')}",
    )


def metric(
    column: DeltaGenerator,
    title: str,
    value: str,
    change: str,
    about: str | None = None,
    color: str = "off",
) -> None:
    column.metric(title, value, change, color, delta_arrow="off", help=about, border=True)


def quality_metric(column: DeltaGenerator, before: Scores, after: Scores) -> None:
    """Draw the quality with its change in words; red for worse, green for better."""
    name, original, value = quality_before_after(before, after)
    if name == "Perplexity":
        metric(
            column,
            name,
            f"{value:.2f}",
            f"{change(original, value)} from {original:.2f}",
            meaning("perplexity"),
            "red" if value > original else "green",
        )
    else:
        difference = f"{100 * (value - original):+.1f} pts from {percent(original)}"
        metric(
            column,
            name,
            percent(value),
            difference,
            meaning("accuracy"),
            "red" if value < original else "green",
        )


def quality_before_after(before: Scores, after: Scores) -> tuple[str, float, float]:
    if before.perplexity is not None:
        return "Perplexity", before.perplexity, after.perplexity
    return "Accuracy", before.accuracy, after.accuracy


def protocol_line(record: RunRecord) -> str:
    """One line that describes the data and protocol of the numbers."""
    summary, left = record.summary, record.summary.result.parameters
    parameters = (
        f" {count(left)} of {count(summary.baseline.parameters)} parameters remain."
        if 0 < left < summary.baseline.parameters
        else ""
    )
    agreed = (
        f" Same answer as the original in {percent(summary.result.agreement)} (agreement)."
        if summary.result.agreement is not None
        else ""
    )
    data, dtype = summary.protocol.fingerprint, summary.protocol.compute_dtype
    fingerprint = (
        f"Data fingerprint {data}; computed in {dtype} on {summary.device} in "
        f"{duration(summary.seconds)}."
    )
    return f"{summary.protocol.measure} {fingerprint}{agreed}{parameters}"
