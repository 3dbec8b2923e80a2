"""A recipe as text: shown, saved to a file, and opened again into the pipeline."""

import streamlit as st

from engine.catalog.models import ASSETS
from engine.errors import PlainError
from engine.recipe import Recipe
from pages.parts import chain
from pages.parts.model_picker import choose_model
from pages.parts.plainly import said
from pages.parts.state import choices_for, opened_recipes, training_for

REFUSED = "recipe-refused"  # why a file was not opened
MOST_MEGABYTES = 1  # a recipe has a few kilobytes
OWN = {path.stem: path for path in sorted((ASSETS / "recipes").glob("*.yaml"))}


def recipe_file(recipe: Recipe | None) -> None:
    """To keep what stands on the page, and to open what was kept."""
    st.markdown("#### Recipe")
    if recipe:
        with st.expander("The recipe as text (YAML)"):
            st.code(recipe.to_yaml(), language="yaml")
        look = {"icon": ":material/download:", "width": "stretch", "key": "pipeline-save", "on_click": "ignore"}
        st.download_button("Save as recipe", recipe.to_yaml(), "pipeline.yaml", "text/yaml", **look)
    key, own = (f"pipeline-{what}-{opened_recipes()}" for what in ("open", "own"))
    about = "Its model, data and steps take the place of those on this page."
    look = {"key": key, "on_change": open_file, "args": (key,), "max_upload_size": MOST_MEGABYTES, "help": about}
    if st.file_uploader("Open a recipe", ["yaml", "yml", "json"], **look) and REFUSED in st.session_state:
        said(st.session_state[REFUSED])
    st.selectbox(
        "Or one that comes with the app", list(OWN), None, title, key=own, placeholder="Choose a recipe", on_change=open_own, args=(own,), help=about
    )


def title(name: str) -> str:
    return name.replace("-", " ").capitalize()


def open_own(key: str) -> None:
    take_over(Recipe.from_yaml(OWN[st.session_state[key]].read_text()))


def open_file(key: str) -> None:
    st.session_state.pop(REFUSED, None)
    if file := st.session_state[key]:
        try:
            take_over(recipe_in(file.name, file.getvalue()))
        except PlainError as error:
            st.session_state[REFUSED] = str(error)


def recipe_in(name: str, content: bytes) -> Recipe:
    try:
        return Recipe.from_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise PlainError(f"{name} is not UTF-8 text, so it is no recipe; save it as UTF-8, or choose another file.") from None


def take_over(recipe: Recipe) -> None:
    """Everything a recipe says, where the pages look for it. To be called before the page is drawn anew."""
    said = recipe.model_dump(mode="json")
    choose_model(recipe.model)
    chain.replace(said["steps"])
    measured = {name: said[name] for name in ("task", "device", "dtype", "layers", "seed")}
    choices_for(recipe.model).update(measured | {"calibration": said["calibration"] or {}})
    learnt = training_for(recipe.model)
    learnt.clear()
    learnt.update(recipe.training.model_dump(exclude_defaults=True) if recipe.training else {})
    st.session_state["pipeline-beside"] = {recipe.model: {"speed": said["speed"]} | ({} if said["calibration"] else {"calibration": None})}
    st.session_state["opened-recipes"] = opened_recipes() + 1
