"""The ten-times example: its recipe, its result, and the size and accuracy after each step."""

from math import sqrt
from typing import Any

import pandas as pd
import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.recipe.model_names import ASSETS
from engine.results.analysis.per_step_scores import step_scores
from engine.results.schema.record import RunRecord
from pages.formatting.numbers import count, megabytes, percent, two_decimals
from pages.widgets.chart_card import table_download
from pages.widgets.glossary_help import meaning
from pages.widgets.queries import literal_markdown, show_errors
from pages.widgets.runs.example import EXAMPLES
from pages.widgets.runs.run_card import current_run
from pages.widgets.state import session

NAME = "ten-times"
RECIPE = ASSETS / "recipes" / f"{NAME}.yaml"
STAGES = {
    "Teacher": (
        "The **Library detective**, a float32 BERT with six blocks of four attention heads. It "
        "predicts which of eight libraries a passage of documentation is from."
    ),
    "Student": (
        "Half the blocks and half the heads, initialized with the teacher's weights. It is trained "
        "on the teacher's probabilities for each text (**distillation**), including unlabeled "
        "texts, and stored in 16 bits."
    ),
    "4-bit student": (
        "Its matrices in 4 bits with levels for normally distributed weights (**NF4**) and 8-bit "
        "scales (**double quantization**). Embeddings, norms, biases and the last layer stay in 16 "
        "bits, as in 4-bit loading."
    ),
}
COLUMN_FORMATS = {
    "parameters": count,
    "size_bytes": megabytes,
    "bits_per_parameter": two_decimals,
    "accuracy": percent,
    "precision": percent,
    "recall": percent,
    "f1": percent,
}
COLUMN_TITLES = {
    "parameters": "Parameters",
    "size_bytes": "Size",
    "bits_per_parameter": "Bits per parameter",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
}
SCORES_NOTE = (
    "Precision, recall and F1 are macro averages. The student's best state is chosen on part of "
    "the validation texts; neither validation nor test texts are trained on."
)
# macro averages
TERMS = {"precision": "macro_precision", "recall": "macro_recall", "f1": "macro_f1"}


def example_recipe() -> Recipe:
    return Recipe.from_yaml(RECIPE.read_text("utf-8"))


def own_run(recipe: Recipe) -> str | None:
    """Return the current run if it is one of this recipe."""
    run = current_run()
    return run if run and session().store.record(run).recipe == recipe else None


def scores_and_source(run: str | None) -> tuple[pd.DataFrame, str]:
    """Return the scores after each step and their source: the user's run if finished, otherwise the
    stored one.
    """
    if run and session().store.record(run).status == "done":
        with show_errors(f"Run {run}"):
            return step_scores(
                session().store.tables(run).stages
            ), f"Your run {run}. {standard_error(session().store.record(run))}"
    try:
        stored = "A stored run of the same recipe; it is replaced by yours."
        return step_scores(
            EXAMPLES.tables(NAME).stages
        ), f"{stored} {standard_error(EXAMPLES.record(NAME))}"
    except PlainError:
        return pd.DataFrame(), ""  # a missing stored result must not stop the page


def standard_error(record: RunRecord) -> str:
    """Sentence with the standard error of the accuracy."""
    texts, right = record.summary.protocol.samples, record.summary.result.accuracy
    return (
        f"Standard error with {texts:,} test texts: "
        f"±{100 * sqrt(right * (1 - right) / texts):.1f} points."
    )


def stage_cards(scores: pd.DataFrame) -> None:
    """Draw the three models side by side."""
    for number, (column, (name, idea)) in enumerate(
        zip(st.columns(len(STAGES)), STAGES.items(), strict=True)
    ):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{number + 1} · {name}**")
            st.caption(idea)
            if number in scores.get("step", ()):
                stage_metrics(scores, number)


def stage_metrics(scores: pd.DataFrame, step: int) -> None:
    """Draw size and accuracy on the split that runs are compared by."""
    rows = scores[scores.split == scores.split[0]].set_index("step")
    first, current = rows.loc[0], rows.loc[step]
    smaller = f"{current.compression:.1f} times smaller" if step else "uncompressed"
    st.metric(
        "Size of the files",
        megabytes(current.size_bytes),
        smaller,
        "off",
        delta_arrow="off",
        help=meaning("size_bytes"),
    )
    st.markdown(
        f"Correct on **{percent(current.accuracy)}** of the {literal_markdown(current.split)} "
        f"texts{change_text(current.accuracy - first.accuracy) if step else ''}."
    )


def change_text(share: float) -> str:
    """Text for a change of accuracy: -0.012 -> ", 1.2 points less than the teacher"."""
    points = round(100 * share, 1)
    return (
        f", {abs(points):g} points {'more' if points > 0 else 'less'} than the teacher"
        if points
        else ", as many as the teacher"
    )


def score_tables(scores: pd.DataFrame, source: str, key: str) -> None:
    """Draw one table per split and the download button."""
    for split, rows in scores.groupby("split", sort=False):
        st.markdown(f"**On {literal_markdown(split)} texts**")
        st.dataframe(
            formatted_scores(rows),
            hide_index=True,
            width="stretch",
            key=f"{key}-{split}",
            column_config=column_help(),
        )
    st.caption(f"{source} {SCORES_NOTE}")
    table_download("Table as CSV", scores, f"{NAME}.csv", key=f"{key}-csv")


def formatted_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Format numbers as text: "23.6 MB", "80.3%"."""
    shown = {COLUMN_TITLES[name]: rows[name].map(say) for name, say in COLUMN_FORMATS.items()}
    return pd.DataFrame({"Model": [list(STAGES)[step] for step in rows.step]} | shown)


def column_help() -> dict[str, Any]:
    return {
        head: st.column_config.Column(help=meaning(TERMS.get(name, name)))
        for name, head in COLUMN_TITLES.items()
    }
