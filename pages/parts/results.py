"""A finished run: numbers before and after, then a panel at a time."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from engine.results.analysis import entropy_bits, most_flattened, worst_layer
from engine.results.record import RunRecord, Scores
from engine.results.tables import Tables
from pages.panels import (
    ACTIVATION_SURFACE,
    ALPHA_SEARCH,
    BITS_PER_LAYER,
    CHANNEL_ERROR,
    LAYER_ERROR,
    LEVELS,
    SALIENCE,
    SALIENT_CHANNELS,
    SENSITIVITY,
    SIZE_LEDGER,
    SPEED,
    WEIGHT_HISTOGRAM,
)
from pages.panels.numbers import change, megabytes, percent, seconds
from pages.parts.notes import show_notes
from pages.parts.plainly import escaped, plainly
from pages.parts.ranges import chooses_ranges, ranges
from pages.parts.show import show
from pages.parts.state import session
from pages.parts.words import meaning


def show_results(record: RunRecord, key: str) -> None:
    with plainly():
        tables = session().tables(record.id)
    show_run(record, tables, key)


def show_run(record: RunRecord, tables: Tables, key: str) -> None:
    st.markdown(f"### {escaped(record.label)}")
    headline(record, tables)
    show_notes(tables.layers)
    for note in [*record.summary.notes, *([record.message] if record.message else [])]:
        st.warning(escaped(note))
    views = views_of(record, tables)
    chosen = st.pills("Look at", list(views), default="Layers", key=f"{key}-view", label_visibility="collapsed") or "Layers"
    views[chosen](record, tables, f"{key}-{record.id}")


def views_of(record: RunRecord, tables: Tables) -> dict[str, Callable[[RunRecord, Tables, str], None]]:
    """What there is to see of this run."""
    views = {
        "Layers": layers_view,
        "Weights": weights_view,
        "Levels": levels_view,
        "Channels": channels_view,
        "Sensitivity": sensitivity_view,
        "Salience": salience_view,
        "Bits": bits_view,
        "Inputs": inputs_view,
        "Alpha search": search_view,
        "Outliers": surface_view,
        "Ranges": ranges_view,
        "Bytes": bytes_view,
        "Speed": speed_view,
        "Text": text_view,
        "Recipe": recipe_view,
    }
    there = {
        "Levels": not tables.levels.empty,
        "Sensitivity": not tables.sensitivity.empty,
        "Salience": not tables.salience.empty,
        "Bits": bool(record.recipe.steps),
        "Inputs": not tables.inputs.empty,
        "Alpha search": bool(tables.searches.layer.duplicated().any()),
        "Outliers": not tables.surfaces.empty,
        "Ranges": any(chooses_ranges(step.model_dump()) for step in record.recipe.steps),
        "Speed": not tables.latency.empty,
        "Text": not tables.samples.empty,
    }
    return {name: view for name, view in views.items() if there.get(name, True)}


def headline(record: RunRecord, tables: Tables) -> None:
    """Four numbers, each with its change."""
    before, after = record.summary.baseline, record.summary.result
    size, quality, bits, worst = st.columns([3, 3, 3, 4])  # the last holds a layer's name
    smaller = f"{after.compression:.2f}x, from {megabytes(before.size_bytes)}"
    metric(size, "Size of the files", megabytes(after.size_bytes), smaller, meaning("size_bytes"))
    quality_metric(quality, before, after)
    metric(bits, "Bits per weight", f"{after.bits_per_weight:.2f}", f"from {before.bits_per_weight:.2f}", meaning("bits_per_weight"))
    layer = worst_layer(tables.layers)
    row = tables.layers[tables.layers.name == layer]
    error = row.output_error.fillna(row.relative_error).iloc[0] if layer else float("nan")
    metric(worst, "Hardest hit layer", percent(error), layer.removeprefix("model.") or "none", f"{layer}. {meaning('output_error')}")
    st.caption(escaped(protocol_of(record)))


def metric(place, title: str, value: str, change: str, about: str | None = None, colour: str = "off") -> None:
    place.metric(title, value, change, colour, delta_arrow="off", help=about, border=True)


def quality_metric(place, before: Scores, after: Scores) -> None:
    """Red for worse, green for better, and the sign in words."""
    name, was, now = quality_of(before, after)
    if name == "Perplexity":
        metric(place, name, f"{now:.2f}", f"{change(was, now)} from {was:.2f}", meaning("perplexity"), "red" if now > was else "green")
    else:
        metric(
            place, name, percent(now), f"{100 * (now - was):+.1f} points from {percent(was)}", meaning("accuracy"), "red" if now < was else "green"
        )


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


def layers_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(LAYER_ERROR, tables.layers, f"{key}-layers")


def weights_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    mine = tables.histograms[tables.histograms.layer == layer]
    show(WEIGHT_HISTOGRAM, mine, f"{key}-weights", levels=tables.levels[tables.levels.layer == layer])


def levels_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    mine = tables.levels[tables.levels.layer == layer]
    show(LEVELS, mine, f"{key}-levels")
    about_codes(mine, tables.layers[tables.layers.name == layer].note.iloc[0])


def about_codes(levels: pd.DataFrame, note: str) -> None:
    """How much the codes say, and what was noted of the layer."""
    if levels.weights.sum() > 0:
        st.caption(f"Written one by one in the shortest way, these codes would take at least {entropy_bits(levels):.2f} bits each (their entropy).")
    if note:
        st.caption(escaped(note[:1].upper() + note[1:] + "."))


def channels_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    show(CHANNEL_ERROR, tables.channels[tables.channels.layer == layer], f"{key}-channels")


def pick_layer(tables: Tables, key: str) -> str:
    """One of the compressed layers, the hardest hit first."""
    treated = tables.layers[tables.layers.technique != ""]
    names = treated.name.tolist()
    worst = worst_layer(tables.layers)
    return st.selectbox("Layer", names, names.index(worst) if worst in names else 0, key=f"{key}-layer")


def bytes_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(SIZE_LEDGER, tables.ledger, f"{key}-bytes")


def sensitivity_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(SENSITIVITY, tables.sensitivity, f"{key}-sensitivity")


def salience_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(SALIENCE, tables.salience, f"{key}-salience")


def bits_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(BITS_PER_LAYER, tables.layers, f"{key}-bits", sensitivity=tables.sensitivity)


def inputs_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    order = st.segmented_control("Order of channels", ["Strongest first", "As in the layer"], default="Strongest first", key=f"{key}-order")
    by_mean = record.recipe.steps[0].needs == "gram"  # AWQ and GPTQ go by how strong inputs are on average, the others by how far they reach
    options = {"measure": "magnitude" if by_mean else "largest", "by_strength": order != "As in the layer"}
    show(SALIENT_CHANNELS, tables.inputs[tables.inputs.layer == layer], f"{key}-inputs", **options)


def search_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = st.selectbox("Layer", tables.searches.layer.unique().tolist(), key=f"{key}-searched", help="The first of the layers that share an input.")
    show(ALPHA_SEARCH, tables.searches, f"{key}-search", layer=layer)


def surface_view(record: RunRecord, tables: Tables, key: str) -> None:
    names = tables.surfaces.layer.unique().tolist()
    first = names.index(most_flattened(tables.surfaces))
    layer = st.selectbox("Input of", names, first, key=f"{key}-surface-of", help="The first of the layers that share an input.")
    seen = st.segmented_control("Seen from", ["Above", "The side"], default="Above", key=f"{key}-relief")
    show(ACTIVATION_SURFACE, tables.surfaces[tables.surfaces.layer == layer], f"{key}-surface", relief=seen == "The side")


def ranges_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Asked anew, with the scales that the run found."""
    layer = pick_layer(tables, key)
    asked = record.recipe.model_dump(mode="json", include={"task", "calibration", "steps"})
    step = asked.pop("steps")[0]
    scales = tables.inputs.scale[tables.inputs.layer == layer].tolist()
    ranges(record.recipe.model, layer, step, asked, key, scales or None)


def speed_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Times where a kernel ran; where none did, why."""
    ran = tables.latency.kernel != ""
    show(SPEED, tables.latency[ran], f"{key}-speed")
    for note in dict.fromkeys(note for note in tables.latency[ran].note if note):
        st.caption(escaped(f"{note[0].upper()}{note[1:]}."))
    for row in tables.latency[~ran].itertuples():
        st.info(escaped(f"{row.note} ({row.what})"))


def text_view(record: RunRecord, tables: Tables, key: str) -> None:
    """The same beginnings, continued by both models."""
    st.markdown("#### What does it write now?")
    for row in tables.samples.itertuples():
        st.markdown("**Beginning**")
        st.code(row.prompt, language=None, wrap_lines=True)
        left, right = st.columns(2)
        left.caption("Original, continued")
        left.code(row.original, language=None, wrap_lines=True)
        right.caption("Compressed, continued")
        right.code(row.compressed, language=None, wrap_lines=True)
    st.caption("Always the likeliest next token (greedy decoding).")


def recipe_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Everything needed to repeat the run."""
    st.markdown("#### How do I repeat this?")
    st.code(record.recipe.to_yaml(), language="yaml")
    st.download_button(
        "Download recipe", record.recipe.to_yaml(), f"recipe-{record.id}.yaml", "text/yaml", key=f"{key}-recipe", icon=":material/download:"
    )
    st.caption("Save it as recipe.yaml and run the same from a shell, keeping the compressed model:")
    st.code("python -m engine run recipe.yaml --save compressed-model", language="bash")
