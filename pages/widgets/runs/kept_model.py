"""Compressed model of a finished run: its folder, a download, and a button to use it as the
model.
"""

import io
import zipfile
from functools import partial
from pathlib import Path

import streamlit as st

from engine.results.schema.record import RunRecord
from pages.widgets.model_picker import choose_model
from pages.widgets.state import session

SHELL_COMMAND = "python -m engine run recipe.yaml --save compressed-model"


def kept_model(record: RunRecord, key: str) -> None:
    st.markdown("#### Where is the compressed model?")
    folder = session().store.kept_model(record.id)
    if folder is None:
        st.caption(
            "The model was too large to keep, or was created by an earlier version. Download "
            "the recipe and recreate it with:"
        )
        st.code(SHELL_COMMAND, language="bash")
        return
    st.code(str(folder), language=None)
    with st.container(horizontal=True):
        options = {"icon": ":material/download:", "key": f"{key}-model", "on_click": "ignore"}
        st.download_button(
            "Download the model (zip)",
            partial(zip_archive, folder),
            f"model-{record.id}.zip",
            "application/zip",
            **options,
        )
        if st.button(
            "Use as the model",
            key=f"{key}-use",
            icon=":material/account_tree:",
            on_click=choose_model,
            args=(str(folder),),
        ):
            st.switch_page("model.py")
    st.caption(
        "Deleted with the run. Open it like any model: as `model:` in a recipe, or with "
        "“Another model…” in the sidebar."
    )


def zip_archive(folder: Path) -> bytes:
    """Zip archive of the folder, without compression because weights are already packed."""
    archived = io.BytesIO()
    with zipfile.ZipFile(archived, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            # a link could lead out of the folder, and reading a pipe never ends
            if path.is_file() and not path.is_symlink():
                archive.write(path, path.relative_to(folder))
    return archived.getvalue()
