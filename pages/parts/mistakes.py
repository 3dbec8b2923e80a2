"""The examples that a teacher got right and its student did not."""

import pandas as pd
import streamlit as st

from engine.catalog.tasks import ImageClassification, LanguageModeling, Task

BEFORE = 44  # characters before a token that are shown: more than a cell would hide the last ones
COLUMNS = {
    "picture": st.column_config.ImageColumn("Picture", width=70),
    "label": st.column_config.TextColumn("Right", width=110, help="The right answer, which the teacher gave."),
    "teacher": st.column_config.NumberColumn("Teacher", format="percent", width=75, help="How probable the teacher took the right answer to be."),
    "answer": st.column_config.TextColumn("Student said", width=110),
    "student": st.column_config.NumberColumn("Student", format="percent", width=75, help="How probable the student took its own answer to be."),
    "text": st.column_config.TextColumn("Text", width=420),
}


def mistakes_table(mistakes: pd.DataFrame, task: Task, key: str) -> None:
    """Cells are text, whatever stands in them."""
    st.markdown("#### Which ones, and how sure was it?")
    if mistakes.empty:
        st.caption("The student got everything right that its teacher got right.")
        return
    picture = isinstance(task, ImageClassification)
    shown = mistakes[["picture"] * picture + ["label", "teacher", "answer", "student"] + ["text"] * (not picture)]
    shown = shown if picture else shown.assign(text=[in_a_line(text, task) for text in shown.text])
    st.dataframe(shown, width="stretch", hide_index=True, key=f"{key}-mistakes", row_height=56 if picture else None, column_config=COLUMNS)
    where = "in the first windows of the text, each with what stood before it" if isinstance(task, LanguageModeling) else "of all examples"
    st.caption(f"The {len(mistakes)} mistakes of which the student was surest, {where}.")


def in_a_line(text: str, task: Task) -> str:
    """Line feeds made visible; before a token, the end of it."""
    line = text.replace("\n", "↵")
    return f"…{line[-BEFORE:]}" if isinstance(task, LanguageModeling) and len(line) > BEFORE else line
