"""The examples that a teacher got right and its student did not."""

import pandas as pd
import streamlit as st

from engine.catalog.tasks import ImageClassification, LanguageModeling, Task

COLUMNS = {
    "text": st.column_config.TextColumn("Text", width="large"),
    "picture": st.column_config.ImageColumn("Picture", width="small"),
    "label": st.column_config.TextColumn("Right, and the teacher's answer"),
    "teacher": st.column_config.NumberColumn("Teacher was sure by", format="percent"),
    "answer": st.column_config.TextColumn("The student's answer"),
    "student": st.column_config.NumberColumn("Student was sure by", format="percent"),
}


def mistakes_table(mistakes: pd.DataFrame, task: Task, key: str) -> None:
    """Cells are text, whatever stands in them."""
    st.markdown("#### Which ones, and how sure was it?")
    if mistakes.empty:
        st.caption("The student got everything right that its teacher got right.")
        return
    what = "picture" if isinstance(task, ImageClassification) else "text"
    shown = mistakes[[what, "label", "teacher", "answer", "student"]]
    st.dataframe(shown, width="stretch", hide_index=True, key=f"{key}-mistakes", row_height=56, column_config=COLUMNS)
    where = "in the first windows of the text, before each token what it was given" if isinstance(task, LanguageModeling) else "among all examples"
    st.caption(f"The {len(mistakes)} mistakes of which the student was surest, {where}. A click on a long text shows all of it.")
