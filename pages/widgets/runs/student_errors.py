"""Table of examples that the teacher got right and the student wrong."""

import pandas as pd
import streamlit as st

from engine.recipe.tasks import ImageClassification, Task

BEFORE = 44  # characters shown before a token; a longer text would hide its end
COLUMNS = {
    "picture": st.column_config.ImageColumn("Image", width=70),
    "label": st.column_config.TextColumn(
        "Correct answer", width=110, help="The label, which the teacher predicted."
    ),
    "teacher": st.column_config.NumberColumn(
        "Teacher",
        format="percent",
        width=75,
        help="Probability that the teacher assigned to the correct answer.",
    ),
    "answer": st.column_config.TextColumn("Student's answer", width=110),
    "student": st.column_config.NumberColumn(
        "Student",
        format="percent",
        width=75,
        help="Probability that the student assigned to its own answer.",
    ),
    "text": st.column_config.TextColumn("Text", width=420),
}


def mistakes_table(mistakes: pd.DataFrame, task: Task, key: str) -> None:
    """Draw the table; all cells are shown as text."""
    st.markdown("#### Most confident mistakes of the student")
    if mistakes.empty:
        st.caption("The student has no mistake that its teacher avoids.")
        return
    is_image_task = isinstance(task, ImageClassification)
    mistakes = mistakes.assign(picture=[data_url(address) for address in mistakes.picture])
    shown = mistakes[
        ["picture"] * is_image_task
        + ["label", "teacher", "answer", "student"]
        + ["text"] * (not is_image_task)
    ]
    shown = (
        shown
        if is_image_task
        else shown.assign(text=[single_line(text, task) for text in shown.text])
    )
    st.dataframe(
        shown,
        width="stretch",
        hide_index=True,
        key=f"{key}-mistakes",
        row_height=56 if is_image_task else None,
        column_config=COLUMNS,
    )
    locations = {
        "language-modeling": "each with the text before it",
        "masked-language-modeling": "each with the text around it",
    }
    origin = (
        f"from the first windows of the text, {locations[task.kind]}"
        if task.kind in locations
        else "from all examples"
    )
    st.caption(
        f"The {len(mistakes)} mistakes with the highest confidence of the student, {origin}."
    )


def data_url(address: str) -> str:
    """Return the address of an image if it is a data: URL, otherwise an empty text, so that nothing
    is fetched from another host.
    """
    return address if address.startswith("data:image/") else ""


def single_line(text: str, task: Task) -> str:
    """Show line feeds as ↵; before a token, keep only the end of the text."""
    line = text.replace("\n", "↵")
    return f"…{line[-BEFORE:]}" if task.kind == "language-modeling" and len(line) > BEFORE else line
