"""Views of a finished run of any technique that have controls or texts of their own. All others are
declared next to their tables.
"""

import pandas as pd
import streamlit as st

from engine.results.analysis.per_step_scores import step_quality
from engine.results.analysis.runs import entropy_bits, most_flattened
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import Tables
from engine.results.schema.tables import (
    CurveRow,
    HistogramRow,
    InputRow,
    LatencyRow,
    LevelRow,
    SampleRow,
    StructureRow,
    SurfaceRow,
    VerdictRow,
)
from pages.panels import (
    ACTIVATION_SURFACE,
    AGREEMENT,
    ALPHA_SEARCH,
    BITS_PER_LAYER,
    LAYER_ERROR,
    LEARNING_RATE,
    LEVELS,
    SALIENT_CHANNELS,
    SIZE_LEDGER,
    SPARSITY_PER_LAYER,
    SPEED,
    STRUCTURE_GRID,
    STRUCTURE_SCORES,
    STRUCTURES_KEPT,
    TRAINING_CURVES,
    WATERFALL,
    WEIGHT_HISTOGRAM,
)
from pages.widgets.chart_card import panel_key, panel_named, show_panel
from pages.widgets.layers.ranges import has_static_ranges, observer_ranges
from pages.widgets.layers.what_if import shown_recipe
from pages.widgets.queries import literal_markdown
from pages.widgets.recipes.recipe_file import apply_recipe
from pages.widgets.runs.kept_model import kept_model
from pages.widgets.runs.student_errors import mistakes_table
from pages.widgets.runs.view_registry import (
    VIEWS,
    RunView,
    pick_layer,
    register_declared,
    result_view,
)


def available_views(record: RunRecord, tables: Tables) -> dict[str, RunView]:
    """Views available for this run by their titles, in their order."""
    ordered = sorted(VIEWS.values(), key=lambda view: view.position)
    return {view.title: view for view in ordered if view.is_shown(record, tables)}


def view_notes(record: RunRecord, title: str) -> list[str]:
    """Captions that the techniques of a run add to a view, each once."""
    notes = [step.view_notes.get(title, "") for step in record.recipe.steps]
    return list(dict.fromkeys(filter(None, notes)))


@result_view(
    "Steps",
    10,
    is_shown=lambda record, tables: bool(record.recipe.steps) and not tables.stages.empty,
)
def steps_view(record: RunRecord, tables: Tables, key: str) -> None:
    show_panel(WATERFALL, step_quality(tables.stages), f"{key}-steps")


@result_view("Curves", 40, CurveRow, opens_first=True)
def curves_view(record: RunRecord, tables: Tables, key: str) -> None:
    show_panel(TRAINING_CURVES, tables.curves, f"{key}-curves")
    show_panel(LEARNING_RATE, tables.curves, f"{key}-rate")
    names = [name for step in record.recipe.steps for name in step.curve_panels]
    for name in dict.fromkeys(names):
        show_panel(panel_named(name), tables.curves, panel_key(key, name))


@result_view("Mistakes", 60, VerdictRow)
def mistakes_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Counts of mistakes, and the most confident ones."""
    show_panel(AGREEMENT, tables.verdicts, f"{key}-verdicts")
    mistakes_table(tables.mistakes, record.recipe.task, key)


@result_view("Layers", 80)
def layers_view(record: RunRecord, tables: Tables, key: str) -> None:
    show_panel(LAYER_ERROR, tables.layers, f"{key}-layers")


@result_view("Weights", 90, HistogramRow)
def weights_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    histograms = tables.histograms[tables.histograms.layer == layer]
    show_panel(
        WEIGHT_HISTOGRAM,
        histograms,
        f"{key}-weights",
        levels=tables.levels[tables.levels.layer == layer],
    )


@result_view("Levels", 100, LevelRow)
def levels_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    levels = tables.levels[tables.levels.layer == layer]
    show_panel(LEVELS, levels, f"{key}-levels")
    about_codes(levels, tables.layers[tables.layers.name == layer].note.iloc[0])


def about_codes(levels: pd.DataFrame, note: str) -> None:
    """Draw the entropy of the codes and the notes on the layer."""
    if levels.weights.sum() > 0:
        st.caption(
            f"The entropy of these codes is {entropy_bits(levels):.2f} bits: no lossless "
            "code per weight is shorter."
        )
    if note:
        st.caption(literal_markdown(note[:1].upper() + note[1:] + "."))


@result_view("Bytes", 600)
def bytes_view(record: RunRecord, tables: Tables, key: str) -> None:
    show_panel(SIZE_LEDGER, tables.ledger, f"{key}-bytes")


@result_view("Sparsity", 120, is_shown=lambda record, tables: not tables.storage.empty)
def sparsity_view(record: RunRecord, tables: Tables, key: str) -> None:
    show_panel(SPARSITY_PER_LAYER, tables.layers, f"{key}-sparsity")


@result_view("Removed", 160, StructureRow)
def structures_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw blocks and heads together; neurons and channels one block at a time."""
    rows = tables.structures
    match rows.what.iloc[0]:
        case "block":
            show_panel(STRUCTURE_SCORES, rows, f"{key}-structures")
        case "head" | "key/value group":
            show_panel(STRUCTURE_GRID, rows, f"{key}-structures")
        case what:
            block = st.selectbox(
                f"{literal_markdown(what.capitalize())}s of",
                rows.block.unique().tolist(),
                key=f"{key}-structures-of",
            )
            show_panel(STRUCTURE_SCORES, rows[rows.block == block], f"{key}-structures")
            show_panel(STRUCTURES_KEPT, rows, f"{key}-kept")


@result_view(
    "Bits",
    210,
    is_shown=lambda record, tables: bool(record.recipe.steps) and tables.structures.empty,
)
def bits_view(record: RunRecord, tables: Tables, key: str) -> None:
    show_panel(BITS_PER_LAYER, tables.layers, f"{key}-bits", sensitivity=tables.sensitivity)


@result_view("Inputs", 220, InputRow)
def inputs_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    order = st.segmented_control(
        "Order of channels",
        ["Strongest first", "Layer order"],
        default="Strongest first",
        key=f"{key}-order",
    )
    # AWQ and GPTQ use mean input strength, the others the range
    by_mean = record.recipe.steps[-1].needs == "gram"
    options = {
        "measure": "magnitude" if by_mean else "largest",
        "by_strength": order != "Layer order",
    }
    show_panel(
        SALIENT_CHANNELS, tables.inputs[tables.inputs.layer == layer], f"{key}-inputs", **options
    )


@result_view(
    "Alpha search",
    230,
    is_shown=lambda record, tables: bool(tables.searches.layer.duplicated().any()),
)
def search_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = st.selectbox(
        "Layer",
        tables.searches.layer.unique().tolist(),
        key=f"{key}-searched",
        help="First of the layers that share this input.",
    )
    show_panel(ALPHA_SEARCH, tables.searches, f"{key}-search", layer=layer)


@result_view("Outliers", 240, SurfaceRow)
def surface_view(record: RunRecord, tables: Tables, key: str) -> None:
    names = tables.surfaces.layer.unique().tolist()
    first = names.index(most_flattened(tables.surfaces))
    layer = st.selectbox(
        "Input of",
        names,
        first,
        key=f"{key}-surface-of",
        help="First of the layers that share this input.",
    )
    chart_type = st.segmented_control(
        "Chart type", ["Heat map", "3D surface"], default="Heat map", key=f"{key}-surface-chart"
    )
    show_panel(
        ACTIVATION_SURFACE,
        tables.surfaces[tables.surfaces.layer == layer],
        f"{key}-surface",
        as_surface=chart_type == "3D surface",
    )


@result_view(
    "Ranges",
    250,
    is_shown=lambda record, tables: any(
        has_static_ranges(step.model_dump()) for step in record.recipe.steps
    ),
)
def ranges_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw the observers' ranges, computed with the scales of the run."""
    layer = pick_layer(tables, key)
    scales = tuple(tables.inputs.scale[tables.inputs.layer == layer].tolist())
    step = record.recipe.steps[-1].model_dump(mode="json")
    shown = shown_recipe(record.recipe.model, [step], record.recipe)
    observer_ranges(shown, layer, key, scales or None)


@result_view("Speed", 610, LatencyRow)
def speed_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw latencies, or why no kernel ran."""
    ran = tables.latency.kernel != ""
    show_panel(SPEED, tables.latency[ran], f"{key}-speed")
    for note in dict.fromkeys(note for note in tables.latency[ran].note if note):
        st.caption(literal_markdown(f"{note[0].upper()}{note[1:]}."))
    for row in tables.latency[~ran].itertuples():
        st.info(literal_markdown(f"{row.note} ({row.what})"))


@result_view("Text", 620, SampleRow)
def text_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw continuations of the same prompts by both models."""
    st.markdown("#### Generated text")
    for row in tables.samples.itertuples():
        st.markdown("**Prompt**")
        st.code(row.prompt, language=None, wrap_lines=True)
        left, right = st.columns(2)
        left.caption("Original model")
        left.code(row.original, language=None, wrap_lines=True)
        right.caption("Compressed model")
        right.code(row.compressed, language=None, wrap_lines=True)
    st.caption("Greedy decoding.")


@result_view("Recipe", 630)
def recipe_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw the compressed model and everything needed to repeat the run."""
    if record.recipe.steps:
        kept_model(record, key)
    st.markdown("#### Repeat this run")
    st.code(record.recipe.to_yaml(), language="yaml")
    options = {"key": f"{key}-recipe", "on_click": "ignore", "icon": ":material/download:"}
    st.download_button(
        "Download recipe", record.recipe.to_yaml, f"recipe-{record.id}.yaml", "text/yaml", **options
    )
    if record.recipe.steps and st.button(
        "Open in the pipeline",
        key=f"{key}-open",
        icon=":material/linear_scale:",
        on_click=apply_recipe,
        args=(record.recipe,),
        help="Opens its model, data and steps for editing.",
    ):
        st.switch_page("pipeline.py")


register_declared()
