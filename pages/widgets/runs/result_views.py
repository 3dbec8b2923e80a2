"""Views of a finished run, one panel each."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from engine.recipe.tasks import LanguageModeling
from engine.results.analysis.per_step_scores import step_by_step
from engine.results.analysis.runs import entropy_bits, most_flattened, worst_layer
from engine.results.schema.record import RunRecord
from engine.results.schema.tables import Tables
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
from pages.widgets.chart_card import show
from pages.widgets.layers.ranges import chooses_ranges, ranges
from pages.widgets.layers.what_if import shown_recipe
from pages.widgets.queries import escaped
from pages.widgets.recipes.recipe_file import take_over
from pages.widgets.runs.kept_model import kept_model
from pages.widgets.runs.student_errors import mistakes_table


def views_of(
    record: RunRecord, tables: Tables
) -> dict[str, Callable[[RunRecord, Tables, str], None]]:
    """Views available for this run."""
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
        "Removed": structures_view,
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
        "Removed": not tables.structures.empty,
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
        st.caption(
            "Step 0 is the same grid without training (post-training quantization); the line "
            "shows what training recovers."
        )
    show(LEARNING_PACE, tables.curves, f"{key}-rate")
    if (tables.curves.name == "slopes lost").any():
        show(LOST_GRADIENTS, tables.curves, f"{key}-lost")
        show(TRAINING_PACE, tables.curves, f"{key}-pace")


def similarity_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(BLOCK_SIMILARITY, tables.similarity, f"{key}-similarity")


def mistakes_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Counts of mistakes, and the most confident ones."""
    show(VERDICTS, tables.verdicts, f"{key}-verdicts")
    mistakes_table(tables.mistakes, record.recipe.task, key)


def written_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Table of all outputs of a black-box teacher."""
    writes = isinstance(record.recipe.task, LanguageModeling)
    names = {
        "prompt": "Prompt" if writes else "Example",
        "continuation": "Written by the teacher" if writes else "Label chosen by the teacher",
    }
    st.markdown(
        "#### Text written by the teacher" if writes else "#### Labels chosen by the teacher"
    )
    st.dataframe(
        tables.written, width="stretch", hide_index=True, key=f"{key}-written", column_config=names
    )
    st.caption(
        "Each text starts with a prompt from the training text and continues with tokens sampled "
        "from the teacher. The "
        "student is trained on the continuation only."
        if writes
        else "The first training examples, each with the class that the teacher chose as its label."
    )


def layers_view(record: RunRecord, tables: Tables, key: str) -> None:
    show(LAYER_ERROR, tables.layers, f"{key}-layers")


def weights_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    mine = tables.histograms[tables.histograms.layer == layer]
    show(
        WEIGHT_HISTOGRAM, mine, f"{key}-weights", levels=tables.levels[tables.levels.layer == layer]
    )


def levels_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    mine = tables.levels[tables.levels.layer == layer]
    show(LEVELS, mine, f"{key}-levels")
    about_codes(mine, tables.layers[tables.layers.name == layer].note.iloc[0])


def about_codes(levels: pd.DataFrame, note: str) -> None:
    """Draw the entropy of the codes and the notes on the layer."""
    if levels.weights.sum() > 0:
        st.caption(
            f"The entropy of these codes is {entropy_bits(levels):.2f} bits: no lossless "
            "code per weight is shorter."
        )
    if note:
        st.caption(escaped(note[:1].upper() + note[1:] + "."))


def channels_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = pick_layer(tables, key)
    show(CHANNEL_ERROR, tables.channels[tables.channels.layer == layer], f"{key}-channels")


def pick_layer(tables: Tables, key: str) -> str:
    """Let the user choose a compressed layer, most affected first."""
    treated = tables.layers[tables.layers.technique != ""]
    names = treated.name.tolist()
    worst = worst_layer(tables.layers)
    return st.selectbox(
        "Layer", names, names.index(worst) if worst in names else 0, key=f"{key}-layer"
    )


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
    """Draw blocks and heads together; neurons and channels one block at a time."""
    rows = tables.structures
    match rows.what.iloc[0]:
        case "block":
            show(STRUCTURE_SCORES, rows, f"{key}-structures")
        case "head" | "key/value group":
            show(STRUCTURE_GRID, rows, f"{key}-structures")
        case what:
            block = st.selectbox(
                f"{escaped(what.capitalize())}s of",
                rows.block.unique().tolist(),
                key=f"{key}-structures-of",
            )
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
    show(SALIENT_CHANNELS, tables.inputs[tables.inputs.layer == layer], f"{key}-inputs", **options)


def search_view(record: RunRecord, tables: Tables, key: str) -> None:
    layer = st.selectbox(
        "Layer",
        tables.searches.layer.unique().tolist(),
        key=f"{key}-searched",
        help="First of the layers that share this input.",
    )
    show(ALPHA_SEARCH, tables.searches, f"{key}-search", layer=layer)


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
    seen = st.segmented_control(
        "Seen from", ["Above", "The side"], default="Above", key=f"{key}-relief"
    )
    show(
        ACTIVATION_SURFACE,
        tables.surfaces[tables.surfaces.layer == layer],
        f"{key}-surface",
        relief=seen == "The side",
    )


def ranges_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw the observers' ranges, computed with the scales of the run."""
    layer = pick_layer(tables, key)
    scales = tuple(tables.inputs.scale[tables.inputs.layer == layer].tolist())
    step = record.recipe.steps[-1].model_dump(mode="json")
    shown = shown_recipe(record.recipe.model, [step], record.recipe)
    ranges(shown, layer, key, scales or None)


def speed_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw latencies, or why no kernel ran."""
    ran = tables.latency.kernel != ""
    show(SPEED, tables.latency[ran], f"{key}-speed")
    for note in dict.fromkeys(note for note in tables.latency[ran].note if note):
        st.caption(escaped(f"{note[0].upper()}{note[1:]}."))
    for row in tables.latency[~ran].itertuples():
        st.info(escaped(f"{row.note} ({row.what})"))


def text_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw continuations of the same prompts by both models."""
    st.markdown("#### Generated text")
    for row in tables.samples.itertuples():
        st.markdown("**Beginning**")
        st.code(row.prompt, language=None, wrap_lines=True)
        left, right = st.columns(2)
        left.caption("Original model")
        left.code(row.original, language=None, wrap_lines=True)
        right.caption("Compressed model")
        right.code(row.compressed, language=None, wrap_lines=True)
    st.caption("Greedy decoding.")


def recipe_view(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw the compressed model and everything needed to repeat the run."""
    if record.recipe.steps:
        kept_model(record, key)
    st.markdown("#### Repeat this run")
    st.code(record.recipe.to_yaml(), language="yaml")
    look = {"key": f"{key}-recipe", "on_click": "ignore", "icon": ":material/download:"}
    st.download_button(
        "Download recipe", record.recipe.to_yaml, f"recipe-{record.id}.yaml", "text/yaml", **look
    )
    if record.recipe.steps and st.button(
        "Open in the pipeline",
        key=f"{key}-open",
        icon=":material/linear_scale:",
        on_click=take_over,
        args=(record.recipe,),
        help="Opens its model, data and steps for editing.",
    ):
        st.switch_page("pipeline.py")
