"""The ranges that observers would choose for one layer's inputs: asked of a worker, for a setting or for a finished run."""

from typing import Any

import streamlit as st

from engine.catalog import TECHNIQUES
from engine.catalog.calibrated import Activations
from engine.errors import PlainError
from pages.panels import OBSERVERS
from pages.parts.plainly import said
from pages.parts.show import show
from pages.parts.state import session


def chooses_ranges(step: dict[str, Any]) -> bool:
    """Whether a step rounds activations to a range that is chosen beforehand."""
    return issubclass(TECHNIQUES[step["technique"]], Activations) and step["mode"] == "static"


def ranges(model: str, layer: str, step: dict[str, Any], measured: dict[str, Any], key: str, scales: list[float] | None = None) -> None:
    """All five observers on what flows into a layer; ``scales`` are those a run divided it by."""
    try:
        answer = session().ask("answers:ranges", timeout=120, model=model, layer=layer, step=step, measured=measured, scales=scales)
    except PlainError as error:
        said(str(error))
        return
    show(OBSERVERS, answer.observers, f"{key}-ranges", histogram=answer.histogram)
    st.caption(f"Asked just now, of {answer.examples} calibration examples that ran through the uncompressed model; a run looks at all of its own.")
