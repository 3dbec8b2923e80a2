"""Store, model and answers with hostile names, notes and texts, and the messages that pages send
about them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from google.protobuf.message import Message
from streamlit.testing.v1 import local_script_runner

from engine.errors import PlainError
from engine.queries import (
    ExplanationQuery,
    ForecastQuery,
    LayerQuery,
    ModelQuery,
    Query,
    RangesQuery,
    RankPlanQuery,
    SingularValuesQuery,
    SoftTargetsQuery,
    WeightMapQuery,
    WeightQuery,
    WhatIfQuery,
)
from engine.recipe import Recipe
from engine.results.schema.explanations import (
    Explanation,
    GroupRow,
    WeightCode,
    WeightMap,
    WeightView,
)
from engine.results.schema.query_results import (
    Forecast,
    InputRanges,
    LayerPreview,
    LayerView,
    ModelView,
    PlannedRanks,
    SoftTargets,
)
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import TABLES, Tables
from engine.results.schema.tables import HistogramRow, LayerRow, LevelRow
from tests.pages.panels import tables as samples
from tests.pages.panels.test_hostile_names import drawn_texts
from tests.runs import PROTOCOL, layer, record, summary, tables

SITE = "foreign.test"
HOSTILE = (
    f"![zq](http://{SITE}/p.png) <img src=http://{SITE}/x.png> <a href='http://{SITE}'>zq</a> "
    f"[zq](http://{SITE}) **zq** `zq` $zq$ :red[zq] ~~zq~~ "
    ":material/zq: http://foreign.test/zq"
)
# parts with an effect in Markdown: without a backslash, or with an intact address or icon
ACTS = re.compile(r"(?<!\\)(!?\[zq|<img|<a |\*\*zq|`zq|\$zq|:red|~~zq)|//foreign|:material[/_]zq")
CLOSED = {  # columns of text with a few known values
    "layers": {"kind", "technique", "tied_to"},
    "curves": {"name"},
    "stages": {"measure", "technique"},
    "sensitivity": {"scheme", "range"},
}


def hostile_name(value: str) -> str:
    """Replace each name by a hostile one; None is unchanged."""
    return f"{HOSTILE} {value}" if value else ""


def hostile_table(
    frame: pd.DataFrame, row: type, closed: frozenset | set = frozenset()
) -> pd.DataFrame:
    """Table with hostile text in every open text column."""
    names = [
        field.name
        for field in fields(row)
        if field.type is str and field.name not in closed and field.name in frame
    ]
    return frame.assign(**{name: frame[name].map(hostile_name) for name in names})


def hostile_tables() -> Tables:
    rows = tables(
        layer(note="zq"),
        layer("conv", (8, 3, 5, 5), output_error=0.25),
        layer("kept", technique="", relative_error=float("nan"), note="zq"),
    )
    hostile = {
        name: hostile_table(getattr(rows, name), declared.row, CLOSED.get(name, set()))
        for name, declared in TABLES.items()
    }
    hostile["mistakes"] = hostile["mistakes"].assign(picture=f"http://{SITE}/picture.png")
    return Tables(**hostile)


def hostile_run(number: int, status: str = "done") -> RunRecord:
    recipe = Recipe.from_dict(
        {
            "model": HOSTILE,
            "task": {"kind": "language-modeling", "text": HOSTILE},
            "steps": [{"technique": "round-to-nearest"}],
        }
    )
    told = {"architecture": HOSTILE, "device": HOSTILE, "model": HOSTILE, "notes": (HOSTILE,)}
    protocol = PROTOCOL.model_copy(
        update={
            "data": HOSTILE,
            "fingerprint": HOSTILE,
            "measure": HOSTILE,
            "compute_dtype": HOSTILE,
        }
    )
    numbers = summary(f"run-{number:04}", protocol=protocol, **told) if status == "done" else None
    return record(number, status, recipe=recipe, summary=numbers, message=HOSTILE)


def answer(query: Query) -> Any:
    """Answers of a worker that opened a hostile model."""
    named = hostile_table(samples.layers(), LayerRow, CLOSED["layers"])
    histogram, levels = (
        hostile_table(samples.histogram(), HistogramRow),
        hostile_table(samples.levels(8), LevelRow),
    )
    channels = samples.channels().assign(layer=HOSTILE)
    row = layer(HOSTILE, note=HOSTILE, block=HOSTILE)
    match query:
        case ModelQuery():
            return ModelView(
                HOSTILE,
                "r1",
                HOSTILE,
                "language-modeling",
                5000,
                10_000,
                16.0,
                16.0,
                named,
                (HOSTILE,),
                longest=64,
            )
        case LayerQuery():
            return LayerView(
                histogram[histogram.version == "original"],
                channels,
                samples.spectrum().assign(layer=HOSTILE),
            )
        case WhatIfQuery():
            return LayerPreview(row, histogram, levels, channels, 1.0, 12)
        case ForecastQuery():
            return Forecast(1000, 4.5, 7.5, 3.5, 2.0, 1e8, 4)
        case RangesQuery():
            return InputRanges(histogram, samples.ranges().assign(layer=HOSTILE), 8)
        case SoftTargetsQuery():
            return SoftTargets(
                samples.soft_targets().assign(answer=[f"{HOSTILE} {i}" for i in range(3)]), HOSTILE
            )
        case RankPlanQuery():
            return PlannedRanks(
                samples.planned_ranks().assign(layer=[f"{HOSTILE}.{i}" for i in range(3)]),
                1000,
                500,
                1.0,
            )
        case SingularValuesQuery():
            return samples.singular().assign(layer=HOSTILE)
        case ExplanationQuery():
            return Explanation(GroupRow, samples.group(), samples.levels(8), HOSTILE)
        case WeightMapQuery():
            return WeightMap(samples.weight_piece(), (128, 256))
        case WeightQuery():
            return WeightView(
                3, 3, 0.1, 0.2, 1.0, WeightCode(3, 3, 0.1, 1.0), samples.group(), samples.levels(8)
            )
    raise PlainError(f"{HOSTILE}.")


def refusal(query: Query) -> Any:
    raise PlainError(f"The model {HOSTILE!r} cannot be opened.")


# --- messages of pages -------------------------------------------------------------------------

# Fields that browsers show as they are: contents of boxes and choices of lists, code, tables, names
# of elements, addresses.
PLAIN = {
    "id",
    "options",
    "default",
    "value",
    "raw_value",
    "set_value",
    "placeholder",
    "code_text",
    "element_id",
    "url",
    "hash",
    "form_id",
    "page_script_hash",
    "user_key",
    "key",
    "format",
    "alt",
    "query_string",
    "string_value",
    "raw_values",
    "default_value",
    "file_name",
    "columns",
    "column_order",
}


@dataclass
class Listener:
    """Records the messages of a script's last run."""

    messages: list[Message]

    @classmethod
    def attach(cls, patch) -> "Listener":
        listener, parse = cls([]), local_script_runner.parse_tree_from_messages

        def record_messages(messages):
            listener.messages = list(messages)
            return parse(messages)

        patch.setattr(local_script_runner, "parse_tree_from_messages", record_messages)
        return listener

    def acting(self) -> set[str]:
        """Texts on the page, in Markdown or figures, in which a hostile name would have an effect;
        empty on a safe page.
        """
        deltas = [message.delta for message in self.messages if message.HasField("delta")]
        return {text for delta in deltas for text in acting_texts(delta)}

    def names_something_hostile(self) -> bool:
        return any("zq" in text for message in self.messages for _, text in texts_in(message))


def acting_texts(delta: Message) -> Iterator[str]:
    for path, text in texts_in(delta):
        if "plotly_chart" in path and path[-1] == "spec":
            figure = go.Figure(json.loads(text), skip_invalid=True)
            yield from (
                each
                for each in drawn_texts(figure)
                if "<img" in each or "<a " in each or "$zq" in each
            )
        elif "arrow_data_frame" in path and path[-1] == "columns":
            yield from [text] if "link" in text or SITE in text else []
        elif path[-1] not in PLAIN and not is_key(path) and ACTS.search(text):
            yield f"{'.'.join(path)}: {text}"


def is_key(path: tuple[str, ...]) -> bool:
    return "latex" in path and path[-1] == "body"


def texts_in(message: Message, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of a message with the names of its fields."""
    for field, value in message.ListFields():
        here = (*path, field.name)
        for each in (
            value
            if isinstance(value, list | tuple)
            or hasattr(value, "add")
            or (hasattr(value, "append"))
            else [value]
        ):
            if isinstance(each, Message):
                yield from texts_in(each, here)
            elif isinstance(each, str):
                yield here, each
