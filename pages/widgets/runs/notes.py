"""Notes on layers that were kept or compressed differently, below a run's numbers."""

import pandas as pd
import streamlit as st

from engine.results.analysis.runs import noted_layers
from pages.widgets.queries import literal_markdown


def show_notes(layers: pd.DataFrame) -> None:
    """Draw an expander with the notes; nothing if there are none."""
    notes = noted_layers(layers)
    if notes.empty:
        return
    with st.expander(notes_title(notes), icon=":material/info:"):
        for row in notes.to_dict("records"):
            st.markdown(
                f"**{'Unchanged' if row['kept'] else 'Compressed'}** "
                f"({literal_markdown(row['note'])}): {literal_markdown(row['names'])}"
            )


def notes_title(notes: pd.DataFrame) -> str:
    """Title such as "3 layers unchanged, 2 layers compressed with a note"."""
    kept, changed = (int(notes["count"][notes.kept == is_kept].sum()) for is_kept in (True, False))
    parts = [f"{layer_count(kept)} unchanged"] if kept else []
    parts += [f"{layer_count(changed)} compressed with a note"] if changed else []
    return f"{', '.join(parts)}: details"


def layer_count(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"
