"""A finished run: numbers before and after, then a panel at a time."""

import streamlit as st

from engine.results.analysis import worst_layer
from engine.results.record import RunRecord, Scores
from engine.results.tables import Tables
from pages.panels.numbers import change, count, megabytes, percent, seconds
from pages.parts.model_picker import short_name
from pages.parts.notes import show_notes
from pages.parts.plainly import escaped, plainly
from pages.parts.state import session
from pages.parts.views import views_of
from pages.parts.words import meaning


def show_results(record: RunRecord, key: str) -> None:
    with plainly():
        tables = session().tables(record.id)
    show_run(record, tables, key)


def show_run(record: RunRecord, tables: Tables, key: str) -> None:
    st.markdown(f"### {escaped(record.label)}")
    st.caption(f"{escaped(short_name(record.recipe.model))} · run {record.id}")
    headline(record, tables)
    show_notes(tables.layers)
    for note in [*record.summary.notes, *([record.message] if record.message else [])]:
        st.warning(escaped(note))
    views = views_of(record, tables)
    first = first_of(views, record)
    chosen = st.pills("Look at", list(views), default=first, key=f"{key}-view", label_visibility="collapsed") or first
    views[chosen](record, tables, f"{key}-{record.id}")


def first_of(views: dict, record: RunRecord) -> str:
    """What is looked at first: of a chain its steps, of a training its curve, else the layers."""
    if "Steps" in views and len(record.recipe.steps) > 1:
        return "Steps"
    return next((name for name in ("Lottery", "Training", "Curves") if name in views), "Layers")


def headline(record: RunRecord, tables: Tables) -> None:
    """Four numbers, each with its change."""
    before, after = record.summary.baseline, record.summary.result
    size, quality, bits, worst = st.columns([6, 7, 6, 8])  # the last holds a layer's name
    smaller = f"{after.compression:.2f}x, from {megabytes(before.size_bytes)}"
    metric(size, "Size of the files", megabytes(after.size_bytes), smaller, meaning("size_bytes"))
    quality_metric(quality, before, after)
    if after.parameters < before.parameters and after.bits_per_weight == before.bits_per_weight:
        metric(bits, "Weights", count(after.parameters), f"from {count(before.parameters)}", meaning("parameters"))
    else:
        metric(bits, "Bits per weight", f"{after.bits_per_weight:.2f}", f"from {before.bits_per_weight:.2f}", meaning("bits_per_weight"))
    if tables.verdicts.empty or after.agreement is None:
        worst_metric(worst, tables)
    else:
        metric(worst, "Same answer as its teacher", percent(after.agreement), "agreement", meaning("agreement"))
    st.caption(escaped(protocol_of(record)))


def worst_metric(place, tables: Tables) -> None:
    layer = worst_layer(tables.layers)
    row = tables.layers[tables.layers.name == layer]
    error = row.output_error.fillna(row.relative_error).iloc[0] if layer else float("nan")
    metric(place, "Hardest hit layer", percent(error), layer.removeprefix("model.") or "none", f"{layer}. {meaning('output_error')}")


def metric(place, title: str, value: str, change: str, about: str | None = None, colour: str = "off") -> None:
    place.metric(title, value, change, colour, delta_arrow="off", help=about, border=True)


def quality_metric(place, before: Scores, after: Scores) -> None:
    """Red for worse, green for better, and the sign in words."""
    name, was, now = quality_of(before, after)
    if name == "Perplexity":
        metric(place, name, f"{now:.2f}", f"{change(was, now)} from {was:.2f}", meaning("perplexity"), "red" if now > was else "green")
    else:
        moved = f"{100 * (now - was):+.1f} pts from {percent(was)}"
        metric(place, name, percent(now), moved, meaning("accuracy"), "red" if now < was else "green")


def quality_of(before: Scores, after: Scores) -> tuple[str, float, float]:
    if before.perplexity is not None:
        return "Perplexity", before.perplexity, after.perplexity
    return "Accuracy", before.accuracy, after.accuracy


def protocol_of(record: RunRecord) -> str:
    """One line that says what the numbers were measured on."""
    said = record.summary
    agreed = f" Same answer as the original on {percent(said.result.agreement)} (agreement)." if said.result.agreement is not None else ""
    where = f"Data fingerprint {said.protocol.fingerprint}; computed in {said.protocol.compute_dtype} on {said.device} in {seconds(said.seconds)}."
    return f"{said.protocol.measure} {where}{agreed}"
