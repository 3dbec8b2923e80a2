"""Recipe as text: display, download and upload into the pipeline."""

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.recipe.model_names import ASSETS
from engine.recipe.text import decode_recipe
from pages.widgets.model_picker import choose_model
from pages.widgets.queries import show_error
from pages.widgets.recipes import pipeline_editor
from pages.widgets.state import measurement_choices, opened_recipes, training_choices

UPLOAD_ERROR = "recipe-refused"  # error of the last upload
MAX_MEGABYTES = 1  # recipes have a few kilobytes
BUNDLED_RECIPES = {path.stem: path for path in sorted((ASSETS / "recipes").glob("*.yaml"))}


def recipe_file(recipe: Recipe | None) -> None:
    """Draw the recipe, its download and the upload of another one."""
    st.markdown("#### Recipe")
    if recipe:
        with st.expander("The recipe as text (YAML)"):
            st.code(recipe.to_yaml(), language="yaml")
        options = {
            "icon": ":material/download:",
            "width": "stretch",
            "key": "pipeline-save",
            "on_click": "ignore",
        }
        st.download_button(
            "Save as recipe", recipe.to_yaml, "pipeline.yaml", "text/yaml", **options
        )
    key, own_key = (f"pipeline-{widget}-{opened_recipes()}" for widget in ("open", "own"))
    about = "Replaces the model, data and steps on this page."
    options = {
        "key": key,
        "on_change": open_file,
        "args": (key,),
        "max_upload_size": MAX_MEGABYTES,
        "help": about,
    }
    if (
        st.file_uploader("Open a recipe", ["yaml", "yml", "json"], **options)
        and UPLOAD_ERROR in st.session_state
    ):
        show_error(st.session_state[UPLOAD_ERROR])
    st.selectbox(
        "Or a bundled recipe",
        list(BUNDLED_RECIPES),
        None,
        recipe_title,
        key=own_key,
        placeholder="Choose a recipe",
        on_change=open_bundled,
        args=(own_key,),
        help=about,
    )


def recipe_title(name: str) -> str:
    return name.replace("-", " ").capitalize()


def open_bundled(key: str) -> None:
    apply_recipe(Recipe.from_yaml(BUNDLED_RECIPES[st.session_state[key]].read_text()))


def open_file(key: str) -> None:
    st.session_state.pop(UPLOAD_ERROR, None)
    if file := st.session_state[key]:
        try:
            apply_recipe(Recipe.from_yaml(decode_recipe(file.getvalue(), file.name)))
        except PlainError as error:
            st.session_state[UPLOAD_ERROR] = str(error)


def apply_recipe(recipe: Recipe) -> None:
    """Set everything a recipe contains as the user's choices. Call it before the page is drawn
    again.
    """
    fields = recipe.model_dump(mode="json")
    choose_model(recipe.model)
    pipeline_editor.replace_steps(fields["steps"])
    measured = {name: fields[name] for name in ("task", "device", "dtype", "layers", "seed")}
    measurement_choices(recipe.model).update(
        measured | {"calibration": fields["calibration"] or {}}
    )
    learnt = training_choices(recipe.model)
    learnt.clear()
    learnt.update(recipe.training.model_dump(exclude_defaults=True) if recipe.training else {})
    st.session_state["pipeline-other-fields"] = {
        recipe.model: {"speed": fields["speed"]}
        | ({} if fields["calibration"] else {"calibration": None})
    }
    st.session_state["opened-recipes"] = opened_recipes() + 1
