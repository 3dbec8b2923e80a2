"""Names in tables are untrusted: no figure shows one as a link, bold text or a formula."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.formatting.names import plotly_text
from tests.cases import for_each
from tests.pages.panels.test_every_panel import PANELS, TABLES, every_panel

PAYLOAD = '<a href="foreign.test"><b>zq</b></a> $\\alpha$ &lt;i&gt;'
# parts with an effect in Plotly, wherever it is cut
ACTS = ("<a", "<b>zq", "$\\alpha", "$\\a", "zq</", "&lt;i&gt;")


def strings(part: Any, path: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Every text of a figure with its location."""
    match part:
        case dict():
            for name, value in part.items():
                yield from strings(value, (*path, name))
        case list() | tuple():
            for value in part:
                yield from strings(value, path)
        case str():
            yield path, part


def is_drawn(path: tuple, figure: dict, trace: dict | None) -> bool:
    """Return True if a text is displayed. Axis positions with tick texts, ids and parents are
    not.
    """
    if path[-1] in ("ids", "parents", "categoryarray", "tickvals", "uid", "customdata"):
        return False
    if path[-1] in ("x", "y") and trace is not None:
        axis = trace.get(f"{path[-1]}axis", path[-1]).replace(path[-1], f"{path[-1]}axis", 1)
        return "ticktext" not in figure["layout"].get(axis, {})
    return True


def drawn_texts(drawn: go.Figure) -> list[str]:
    figure = drawn.to_plotly_json()
    traces = [
        *figure["data"],
        *(trace for frame in figure.get("frames", ()) for trace in frame.get("data", ())),
    ]
    plain = [go.Figure(data=[trace]).to_dict()["data"][0] for trace in traces]  # arrays as lists
    found = [
        text for trace in plain for path, text in strings(trace) if is_drawn(path, figure, trace)
    ]
    layouts = [figure["layout"], *(frame.get("layout", {}) for frame in figure.get("frames", ()))]
    return found + [
        text
        for layout in layouts
        for path, text in strings(layout, ("layout",))
        if is_drawn(path, figure, None)
    ]


def with_payload(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Names that start or end with the payload; different names stay different."""
    spelled = {
        name: f"{PAYLOAD}{number}.{PAYLOAD}" for number, name in enumerate(table[column].unique())
    }
    return table.assign(**{column: table[column].map(spelled)})


@every_panel
def test_no_name_has_an_effect(panel, table):
    for column in table.select_dtypes(["object", "string"]).columns:
        if not all(isinstance(value, str) for value in table[column]):
            continue
        try:
            figure, alt = (
                panel.draw(with_payload(table, column)),
                panel.alt(with_payload(table, column)),
            )
        except (LookupError, ValueError):
            continue  # a closed choice: other values are refused
        acting = {text for text in drawn_texts(figure) if any(piece in text for piece in ACTS)}
        assert not acting, (column, acting)
        assert isinstance(alt, str)


@for_each("name", ["LAYER_ERROR", "TRADE_OFF", "SOFT_TARGETS", "WATERFALL", "TRAINING_CURVES"])
def test_names_are_shown_as_they_were_written(name):
    """So that the check above cannot pass because names are missing."""
    columns = {
        "LAYER_ERROR": "name",
        "TRADE_OFF": "label",
        "SOFT_TARGETS": "answer",
        "WATERFALL": "technique",
        "TRAINING_CURVES": "phase",
    }
    texts = drawn_texts(PANELS[name].draw(with_payload(TABLES[name], columns[name])))
    assert any("foreign" in text and "&lt;a" in text for text in texts)


def test_the_check_detects_a_name_with_an_effect():
    figure = go.Figure(go.Bar(x=[1], y=[PAYLOAD], name="safe"))
    assert any("<a" in text for text in drawn_texts(figure))
    figure.update_yaxes(tickvals=[PAYLOAD], ticktext=[plotly_text(PAYLOAD)])
    assert not any(piece in text for text in drawn_texts(figure) for piece in ACTS)
