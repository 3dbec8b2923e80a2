"""What became of layers that were not treated like the others, and why: said under a run's numbers."""

import pandas as pd
import streamlit as st

from engine.results.analysis import noted_layers
from pages.parts.plainly import escaped


def show_notes(layers: pd.DataFrame) -> None:
    """A line that says how many layers were kept, open for which and why; nothing where there is nothing to say."""
    noted = noted_layers(layers)
    if noted.empty:
        return
    with st.expander(title(noted), icon=":material/info:"):
        for row in noted.to_dict("records"):
            st.markdown(f"**{'Kept' if row['kept'] else 'Compressed'}** ({escaped(row['note'])}): {escaped(row['names'])}")


def title(noted: pd.DataFrame) -> str:
    """Such as "3 layers kept as they were, 2 layers compressed with a note: which and why"."""
    kept, changed = (int(noted["count"][noted.kept == which].sum()) for which in (True, False))
    parts = [f"{layers(kept)} kept as {'it was' if kept == 1 else 'they were'}"] if kept else []
    parts += [f"{layers(changed)} compressed with a note"] if changed else []
    return f"{', '.join(parts)}: which and why"


def layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"
