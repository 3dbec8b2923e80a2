"""Properties of all panels."""

from functools import cache

import pandas as pd
import plotly.graph_objects as go

import pages.panels as room
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.gradual.preview import pruning_steps_preview
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.pruning.lottery_ticket.preview import lottery_rounds_preview
from pages.panels import Panel
from tests.cases import for_each
from tests.pages.panels import tables

PANELS = {name: getattr(room, name) for name in room.__all__ if name != "Panel"}
TABLES = {
    "ACTIVATION_SURFACE": tables.surface(),
    "ALPHA_SEARCH": tables.searches(),
    "BITS_PER_LAYER": tables.layers(),
    "BLOCK_SIMILARITY": tables.similarity(),
    "CHANNEL_ERROR": tables.channels(),
    "CHANNEL_RANGES": tables.channels(),
    "CUMULATIVE_ENERGY": tables.singular(),
    "GRADUAL_PRUNING_PREVIEW": pruning_steps_preview(Gradual()),
    "ERROR_BY_BITS": tables.bits(),
    "GPTQ_REPLAY": tables.replay(),
    "IMPORTANCE": tables.importance(),
    "INPUT_RANGES": tables.reach(),
    "LAYER_ERROR": tables.layers(),
    "LAYER_ERROR_SIDE_BY_SIDE": tables.with_labels(tables.layers(), "GPTQ", "AWQ"),
    "LOTTERY": tables.lottery(),
    "MASK": tables.tiles(),
    "MASK_OVERLAP": tables.overlap(),
    "OBSERVERS": tables.ranges(),
    "LEVELS": tables.levels(16),
    "ONE_LAYER_SIDE_BY_SIDE": tables.with_labels(tables.histogram(), "GPTQ", "AWQ", "NF4"),
    "OUTLIER_COLUMNS": tables.outliers(),
    "GROUP_ROUNDING": tables.group(),
    "RANK_PER_LAYER": tables.ranks(),
    "RANK_PLANNER": tables.planned_ranks(),
    "RECONSTRUCTION": tables.matrix_tiles(),
    "REMOVED_WEIGHTS": tables.removed_weights(),
    "LOTTERY_PREVIEW": lottery_rounds_preview(LotteryTicket()),
    "SALIENCE": tables.salience(),
    "SALIENT_CHANNELS": tables.inputs(),
    "SCALED_COLUMN": tables.scaled_column(),
    "GRADUAL_PRUNING": tables.schedule(),
    "SCHEDULE_LIVE": tables.schedule_live(),
    "SENSITIVITY": tables.sensitivity(),
    "SINGULAR_VALUES": tables.singular(),
    "SIZE_LEDGER": tables.ledger(),
    "SOFT_TARGETS": tables.soft_targets(),
    "SPARSITY_PER_LAYER": tables.pruned_layers(),
    "SPECTRUM": tables.spectrum(),
    "SPEED": tables.latency(),
    "STORAGE": tables.storage(),
    "STRUCTURES_KEPT": tables.structures(),
    "STRUCTURE_GRID": tables.structures("head", 8),
    "STRUCTURE_SCORES": tables.structures(blocks=1),
    "TRADE_OFF": tables.runs(),
    "LEARNING_RATE": tables.curves(),
    "TRAINING_CURVES": tables.curves(),
    "THROUGHPUT": tables.precisions(),
    "LOST_GRADIENTS": tables.precisions(),
    "WATERFALL": tables.steps(),
    "AGREEMENT": tables.verdicts(),
    "CHANNEL_SELECTION": tables.criteria(),
    "WEIGHT_MAP": tables.weight_piece(),
    **dict.fromkeys(
        ("WEIGHTS_LEFT", "WEIGHTS_OF_FACTORS", "WEIGHTS_OF_STRUCTURES"), tables.histogram()
    ),
    "WEIGHT_HISTOGRAM": tables.histogram(),
    "WHERE_THE_BYTES_ARE": tables.layers(),
}
every_panel = for_each(
    ("panel", "table"), [(panel, TABLES.get(name)) for name, panel in PANELS.items()], ids=PANELS
)


@cache
def figure_of(panel: Panel) -> go.Figure:
    """The panel's figure, drawn once for all tests that only read it."""
    (name,) = [name for name, other in PANELS.items() if other is panel]
    return panel.draw(TABLES[name])


def drawn_axes(figure: go.Figure) -> list:
    return [
        axis
        for axis in [*figure.select_xaxes(), *figure.select_yaxes()]
        if axis.visible is not False
    ]


def has_axes(figure: go.Figure) -> bool:
    return not any(isinstance(trace, go.Treemap) for trace in figure.data)


@every_panel
def test_empty_table_says_so(panel: Panel, table: pd.DataFrame):
    figure = panel.draw(table.iloc[:0])
    assert not figure.data and not drawn_axes(figure)
    assert len(figure.layout.annotations) == 1 and figure.layout.annotations[0].text.endswith(".")


@every_panel
def test_table_is_left_untouched(panel: Panel, table: pd.DataFrame):
    before = table.copy(deep=True)
    panel.draw(table)
    panel.alt(table)
    pd.testing.assert_frame_equal(table, before)


@every_panel
def test_row_labels_do_not_matter(panel: Panel, table: pd.DataFrame):
    # as pandas leaves them when tables of several runs are joined
    joined = table.set_axis([0] * len(table))
    assert panel.draw(joined).to_json() == panel.draw(table).to_json()
    assert panel.alt(joined) == panel.alt(table)


@every_panel
def test_headings_have_no_period_and_captions_end_with_one(panel: Panel, table: pd.DataFrame):
    assert panel.question[0].isupper() and not panel.question.endswith(".")
    assert panel.caption.endswith(".")


@every_panel
def test_alt_text_says_more_than_the_question(panel: Panel, table: pd.DataFrame):
    assert panel.alt(table).startswith(panel.question) and any(
        letter.isdigit() for letter in panel.alt(table)
    )
    assert panel.alt(table.iloc[:0]).endswith("Nothing to show.")


@every_panel
def test_axes_that_measure_name_their_unit(panel: Panel, table: pd.DataFrame):
    figure = figure_of(panel)
    titles = [axis.title.text or "" for axis in drawn_axes(figure) if axis.type != "category"]
    assert all("(" in title for title in titles if title) and (
        any(titles) or not titles or not has_axes(figure)
    )


@every_panel
def test_background_is_left_to_the_page(panel: Panel, table: pd.DataFrame):
    layout = figure_of(panel).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert layout.font.color is None, "a font color set here would beat the page's theme"


@every_panel
def test_figure_fits_a_phone(panel: Panel, table: pd.DataFrame):
    layout = figure_of(panel).layout
    assert (
        layout.width is None
        and layout.legend.orientation == "h"
        and layout.margin.l + layout.margin.r <= 24
    )


@every_panel
def test_every_trace_answers_the_pointer_with_words(panel: Panel, table: pd.DataFrame):
    shown = [trace for trace in figure_of(panel).data if trace.hoverinfo != "skip"]
    assert shown and all(
        trace.hovertext is not None and "text" in trace.hoverinfo for trace in shown
    )


def test_every_panel_has_a_table_here():
    assert set(PANELS) == set(TABLES)
