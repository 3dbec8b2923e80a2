"""The compressed model of a finished run: where it lies, as a download, and as the model to go on with."""

import io
import zipfile
from functools import partial
from pathlib import Path

import streamlit as st

from engine.results.record import RunRecord
from pages.parts.model_picker import choose_model
from pages.parts.state import session

IN_A_SHELL = "python -m engine run recipe.yaml --save compressed-model"


def kept_model(record: RunRecord, key: str) -> None:
    st.markdown("#### Where is the compressed model?")
    folder = session().kept_model(record.id)
    if folder is None:
        st.caption("It was not kept: it is large, or was made by an earlier version. Save the recipe as recipe.yaml, and a shell makes it again:")
        st.code(IN_A_SHELL, language="bash")
        return
    st.code(str(folder), language=None)
    with st.container(horizontal=True):
        look = {"icon": ":material/download:", "key": f"{key}-model", "on_click": "ignore"}
        st.download_button("Download the model (zip)", partial(zipped, folder), f"model-{record.id}.zip", "application/zip", **look)
        if st.button("Use as the model", key=f"{key}-use", icon=":material/account_tree:", on_click=choose_model, args=(str(folder),)):
            st.switch_page("model.py")
    st.caption("Kept for as long as the run is. It opens as any model does: as `model:` of a recipe, or by “Another model…” in the sidebar.")


def zipped(folder: Path) -> bytes:
    """Weights are packed already, so nothing is squeezed."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return held.getvalue()
