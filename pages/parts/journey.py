"""The ten-times journey: its recipe, whose result is shown, and what each station did to size and accuracy."""

from math import sqrt

import pandas as pd
import streamlit as st

from engine.catalog.models import ASSETS
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.record import RunRecord
from engine.results.standings import standings
from pages.panels.numbers import count, megabytes, percent
from pages.parts.example import EXAMPLES
from pages.parts.plainly import escaped, plainly
from pages.parts.run_card import current_run
from pages.parts.show import csv_of
from pages.parts.state import session
from pages.parts.words import meaning

NAME = "ten-times"
RECIPE = ASSETS / "recipes" / f"{NAME}.yaml"
STATIONS = {
    "Teacher": (
        "The **Library detective**, a BERT of six blocks with four attention heads each, every weight in 32 bits. It reads a passage of "
        "documentation and says which of eight libraries it is from."
    ),
    "Student": (
        "Half the blocks and half the heads, begun with the teacher's own weights. It learns from what the teacher *says* of each text, doubts "
        "included (**distillation**), also of texts that nobody has labelled. It is written in 16 bits."
    ),
    "4-bit student": (
        "Its matrices in 4 bits, at levels made for bell-shaped weights (**NF4**), their scales in 8 bits (**double quantization**). What 4-bit "
        "loading never touches stays in 16 bits: embeddings, norms, biases and the last layer."
    ),
}
COLUMNS = {"parameters": count, "size_bytes": megabytes, "accuracy": percent, "precision": percent, "recall": percent, "f1": percent}
HEADS = {"parameters": "Weights", "size_bytes": "Size", "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1"}
READ = (
    "Precision, recall and F1 are means over the classes (macro averages). The student's best state is chosen on some of the validation texts; "
    "nothing is learnt from either."
)
TERMS = {"precision": "macro_precision", "recall": "macro_recall", "f1": "macro_f1"}  # every class counts as much


def journey() -> Recipe:
    return Recipe.from_yaml(RECIPE.read_text("utf-8"))


def own_run(recipe: Recipe) -> str | None:
    """The current run, where it is one of this recipe."""
    run = current_run()
    return run if run and session().record(run).recipe == recipe else None


def outcome_of(run: str | None) -> tuple[pd.DataFrame, str]:
    """How the model stood after each station, and where that is from: the own run once it is done, before that the stored one."""
    with plainly():
        if run and session().record(run).status == "done":
            return standings(session().tables(run).stages), f"Your run {run}. {chance(session().record(run))}"
    try:
        stored = "A finished run of the same recipe, stored with this project; your own takes its place."
        return standings(EXAMPLES.tables(NAME).stages), f"{stored} {chance(EXAMPLES.record(NAME))}"
    except PlainError:
        return pd.DataFrame(), ""  # a stored result is no reason to stop the page


def chance(record: RunRecord) -> str:
    """How far an accuracy would be off on as many other texts: its standard error."""
    texts, right = record.summary.protocol.samples, record.summary.result.accuracy
    return f"With {texts:,} test texts, chance alone moves an accuracy by {100 * sqrt(right * (1 - right) / texts):.1f} points (a standard error)."


def stations(known: pd.DataFrame) -> None:
    """Side by side, each with what it did."""
    for number, (column, (name, idea)) in enumerate(zip(st.columns(len(STATIONS)), STATIONS.items(), strict=True)):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{number + 1} · {name}**")
            st.caption(idea)
            if number in known.get("step", ()):
                standing(known, number)


def standing(known: pd.DataFrame, step: int) -> None:
    """By the split that the run is judged by."""
    judged = known[known.split == known.split[0]].set_index("step")
    first, now = judged.loc[0], judged.loc[step]
    smaller = f"{now.compression:.1f} times smaller" if step else "uncompressed"
    st.metric("Size of the files", megabytes(now.size_bytes), smaller, "off", delta_arrow="off", help=meaning("size_bytes"))
    st.markdown(f"Right on **{percent(now.accuracy)}** of the {escaped(now.split)} texts{moved(now.accuracy - first.accuracy) if step else ''}.")


def moved(share: float) -> str:
    """-0.012 -> ", 1.2 points less than the teacher"."""
    points = round(100 * share, 1)
    return f", {abs(points):g} points {'more' if points > 0 else 'less'} than the teacher" if points else ", as many as the teacher"


def report(known: pd.DataFrame, source: str, key: str) -> None:
    """One table a split, as the article has it, and the numbers to take away."""
    for split, rows in known.groupby("split", sort=False):
        st.markdown(f"**On {escaped(split)} texts**")
        st.dataframe(written(rows), hide_index=True, width="stretch", key=f"{key}-{split}", column_config=helped())
    st.caption(f"{source} {READ}")
    st.download_button("Table as CSV", csv_of(known), f"{NAME}.csv", "text/csv", key=f"{key}-csv", icon=":material/download:")


def written(rows: pd.DataFrame) -> pd.DataFrame:
    """For people: "23.6 MB", "80.3 %"."""
    shown = {HEADS[name]: rows[name].map(say) for name, say in COLUMNS.items()}
    return pd.DataFrame({"Model": [list(STATIONS)[step] for step in rows.step]} | shown)


def helped() -> dict:
    return {head: st.column_config.Column(help=meaning(TERMS.get(name, name))) for name, head in HEADS.items()}
