"""What there is to see of a finished run: a view, a panel."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from engine.catalog.tasks import LanguageModeling
from engine.results.analysis import entropy_bits, most_flattened, worst_layer
from engine.results.record import RunRecord
from engine.results.standings import step_by_step
from engine.results.tables import Tables
from pages.panels import (
    ACTIVATION_SURFACE,
    ALPHA_SEARCH,
    BITS_PER_LAYER,
    BLOCK_SIMILARITY,
    CHANNEL_ERROR,
    CUMULATIVE_ENERGY,
    IMPORTANCE,
    IMPORTANCE_BY_BLOCKS,
    LAYER_ERROR,
    LEARNING_PACE,
    LEVELS,
    LOST_GRADIENTS,
    LOTTERY,
    MASK,
    RANK_PER_LAYER,
    SALIENCE,
    SALIENT_CHANNELS,
    SCHEDULE,
    SENSITIVITY,
    SINGULAR_VALUES,
    SIZE_LEDGER,
    SPARSITY_PER_LAYER,
    SPEED,
    STORAGE,
    STRUCTURE_GRID,
    STRUCTURE_SCORES,
    STRUCTURES_KEPT,
    TRAINING_CURVES,
    TRAINING_PACE,
    VERDICTS,
    WATERFALL,
    WEIGHT_HISTOGRAM,
)
from pages.parts.kept_model import kept_model
from pages.parts.mistakes import mistakes_table
from pages.parts.plainly import escaped
from pages.parts.ranges import chooses_ranges, ranges
from pages.parts.recipe_file import take_over
from pages.parts.show import show


def views_of(record: RunRecord, tables: Tables) -> dict[str, Callable[[RunRecord, Tables, str], None]]:
    """What there is to see of this run."""
    views = {
        "Steps": steps_view,
        "Lottery": lottery_view,
        "Training": training_view,
        "Curves": curves_view,
        "Similarity": similarity_view,
        "Mistakes": mistakes_view,
        "Written": written_view,
        "Layers": layers_view,
        "Weights": weights_view,
        "Levels": levels_view,
        "Channels": channels_view,
        "Sparsity": sparsity_view,
        "Importance": importance_view,
        "Mask": mask_view,
        "Storage": storage_view,
        "Taken out": structures_view,
        "Ranks": ranks_view,
        "Spectrum": spectrum_view,
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
        "Steps": bool(record.recipe.steps) and not tables.stages.empty,
        "Lottery": not tables.lottery.empty,
        "Training": not tables.schedule.empty,
        "Curves": not tables.curves.empty,
        "Similarity": not tables.similarity.empty,
        "Mistakes": not tables.verdicts.empty,
        "Written": not tables.written.empty,
        "Levels": not tables.levels.empty,
        **dict.fromkeys(("Sparsity", "Mask", "Storage"), not tables.storage.empty),
        "Importance": not tables.importance.empty,
        "Taken out": not tables.structures.empty,
        "Weights": not tables.histograms.empty,
        "Channels": not tables.channels.empty,
        "Ranks": not tables.ranks.empty,
        "Spectrum": not tables.singular.empty,
        "Sensitivity": not tables.sensitivity.empty,
        "Salience": not tables.salience.empty,
        "Bits": bool(record.recipe.steps) and tables.structures.empty,
        "Inputs": not tables.inputs.empty,
        "Alpha search": bool(tables.searches.layer.duplicated().any()),
        "Outliers": not tables.surfaces.empty,
        "Ranges": any(chooses_ranges(step.model_dump()) for step in record.recipe.steps),
        "Speed": not tables.latency.empty,
        "Text": not tables.samples.empty,
    }
    return {name: view for name, view in views.items() if there.get(name, True)}


def steps_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(WATERFALL, step_by_step(tables.stages), f"{key}-steps")


def lottery_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(LOTTERY, tables.lottery, f"{key}-lottery")


def training_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(SCHEDULE, tables.schedule, f"{key}-training")


def curves_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(TRAINING_CURVES, tables.curves, f"{key}-curves")
    if record.recipe.steps[-1].family == "training" and record.recipe.steps[-1].technique == "qat":
        st.caption("Step 0 is the same grid without training, as rounding afterwards (PTQ) would leave it: the line shows what training wins back.")
    show(LEARNING_PACE, tables.curves, f"{key}-rate")
    if (tables.curves.name == "slopes lost").any():
        show(LOST_GRADIENTS, tables.curves, f"{key}-lost")
        show(TRAINING_PACE, tables.curves, f"{key}-pace")


def similarity_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(BLOCK_SIMILARITY, tables.similarity, f"{key}-similarity")


def mistakes_view(record: RunRecord, tables: Tables, key: str) -> None:
    """How many, and the ones of which the student was surest."""
    show(VERDICTS, tables.verdicts, f"{key}-verdicts")
    mistakes_table(tables.mistakes, record.recipe.task, key)


def written_view(record: RunRecord, tables: Tables, key: str) -> None:
    """All that a student of a black box has seen."""
    writes = isinstance(record.recipe.task, LanguageModeling)
    names = {"prompt": "Prompt" if writes else "Example", "continuation": "Written by the teacher" if writes else "Label chosen by the teacher"}
    st.markdown("#### What did the teacher write for its student?" if writes else "#### What did the teacher answer its student?")
    st.dataframe(tables.written, width="stretch", hide_index=True, key=f"{key}-written", column_config=names)
    st.caption(
        "Each text begins with words of the training text and goes on as the teacher drew it, by its probabilities. Only what it wrote is learnt."
        if writes else "The first examples that the student learns from, each with the class that the teacher chose in the place of a label."
    )  # fmt: skip


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


def sparsity_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(SPARSITY_PER_LAYER, tables.layers, f"{key}-sparsity")


def importance_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    by_blocks = (tables.layers.technique[tables.layers.name == layer] == "sparsegpt").any()
    panel = IMPORTANCE_BY_BLOCKS if by_blocks else IMPORTANCE
    show(panel, tables.importance[tables.importance.layer == layer], f"{key}-importance")


def mask_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    show(MASK, tables.masks[tables.masks.layer == layer], f"{key}-mask")


def storage_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(STORAGE, tables.storage, f"{key}-storage")


def structures_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Blocks and heads all at once; neurons and channels of one block at a time."""
    rows = tables.structures
    match rows.what.iloc[0]:
        case "block":
            show(STRUCTURE_SCORES, rows, f"{key}-structures")
        case "head" | "key/value group":
            show(STRUCTURE_GRID, rows, f"{key}-structures")
        case what:
            block = st.selectbox(f"{what.capitalize()}s of", rows.block.unique().tolist(), key=f"{key}-structures-of")
            show(STRUCTURE_SCORES, rows[rows.block == block], f"{key}-structures")
            show(STRUCTURES_KEPT, rows, f"{key}-kept")


def ranks_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(RANK_PER_LAYER, tables.ranks, f"{key}-ranks")


def spectrum_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    mine = tables.singular[tables.singular.layer == layer]
    show(SINGULAR_VALUES, mine, f"{key}-singular")
    show(CUMULATIVE_ENERGY, mine, f"{key}-energy")


def sensitivity_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(SENSITIVITY, tables.sensitivity, f"{key}-sensitivity")


def salience_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(SALIENCE, tables.salience, f"{key}-salience")


def bits_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(BITS_PER_LAYER, tables.layers, f"{key}-bits", sensitivity=tables.sensitivity)


def inputs_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    order = st.segmented_control("Order of channels", ["Strongest first", "As in the layer"], default="Strongest first", key=f"{key}-order")
    by_mean = record.recipe.steps[-1].needs == "gram"  # AWQ and GPTQ go by how strong inputs are on average, the others by how far they reach
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
    step = asked.pop("steps")[-1]
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
    """What it made, and everything needed to repeat it."""
    if record.recipe.steps:
        kept_model(record, key)
    st.markdown("#### How do I repeat this?")
    st.code(record.recipe.to_yaml(), language="yaml")
    st.download_button(
        "Download recipe", record.recipe.to_yaml(), f"recipe-{record.id}.yaml", "text/yaml", key=f"{key}-recipe", icon=":material/download:"
    )
    if record.recipe.steps and st.button(
        "Open in the pipeline", key=f"{key}-open", icon=":material/linear_scale:", on_click=take_over, args=(record.recipe,),
        help="With its model, data and steps, to be changed there and run anew.",
    ):  # fmt: skip
        st.switch_page("pipeline.py")
