"""Several techniques one after the other: the steps that come before the one on the page."""

import streamlit as st

from engine.catalog import TECHNIQUES
from engine.recipe import Recipe
from pages.parts.plainly import escaped
from pages.parts.state import earlier_steps


def steps_so_far(step: dict, recipe: Recipe | None, key: str) -> None:
    """What is done before, and a way to go on to a second step with this one as the first."""
    earlier = earlier_steps()
    if earlier:
        done = " → ".join(TECHNIQUES[each["technique"]].model_validate(each).label() for each in earlier)
        st.markdown(f"**Done before**: {escaped(done)} → this step")
        st.button("Forget the steps before", key=f"{key}-forget", on_click=earlier.clear, icon=":material/undo:", width="stretch")
    if recipe and may_come_after("quantization", step):
        about = "Keeps this step as it is set here, to be done first, and goes to the Quantize page for the second. The run does both."
        if st.button("Then quantize the result", key=f"{key}-then", help=about, icon=":material/add:", width="stretch"):
            earlier.append(step)
            st.switch_page("quantize.py")
    if recipe and key != "train" and may_come_after("training", step):
        about = "Keeps this step, to be done first, and goes to the Train page: weights or adapters learn to make up for it. The run does both."
        if st.button("Then train the result", key=f"{key}-then-train", help=about, icon=":material/add:", width="stretch"):
            earlier.append(step)
            st.switch_page("train.py")


def may_come_after(family: str, step: dict) -> bool:
    """Whether a technique of that family may come after this step."""
    left = TECHNIQUES[step["technique"]].model_validate(step).leaves
    return any(left in how().takes for how in TECHNIQUES.values() if how.family == family)
