"""View of the outputs of a black-box teacher."""

import streamlit as st

from engine.recipe.tasks import LanguageModeling
from engine.results.schema.record import RunRecord
from engine.results.schema.run_tables import Tables


def teacher_texts(record: RunRecord, tables: Tables, key: str) -> None:
    """Draw a table of the texts or labels that the student was trained on."""
    is_text = isinstance(record.recipe.task, LanguageModeling)
    names = {
        "prompt": "Prompt" if is_text else "Example",
        "continuation": "Written by the teacher" if is_text else "Label chosen by the teacher",
    }
    st.markdown(
        "#### Text written by the teacher" if is_text else "#### Labels chosen by the teacher"
    )
    st.dataframe(
        tables.written, width="stretch", hide_index=True, key=f"{key}-written", column_config=names
    )
    st.caption(
        "Each text starts with a prompt from the training text and continues with tokens sampled "
        "from the teacher. The student is trained on the continuation only."
        if is_text
        else "The first training examples, each with the class that the teacher chose as its label."
    )
