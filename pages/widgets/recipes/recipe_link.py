"""Recipe in the page's address, so that a refresh keeps it and a link shares it."""

import base64
import zlib
from typing import Any

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.recipe.text import MAX_BYTES, parse
from pages.widgets.queries import show_error
from pages.widgets.recipes.recipe_file import apply_recipe

LINK = "recipe"


def store_in_address(recipe: Recipe | None, steps: list[dict[str, Any]]) -> None:
    """Store the recipe in the address; nothing without steps. If a choice is not allowed, the
    address is unchanged.
    """
    if not steps:
        st.query_params.pop(LINK, None)
    elif recipe:
        st.query_params[LINK] = encoded_recipe(recipe)


def open_link() -> None:
    """Open the recipe in the address when a browser session starts. Call it before anything is
    drawn.
    """
    if LINK not in st.query_params or "chain" in st.session_state:
        return
    try:
        apply_recipe(decoded_recipe(st.query_params[LINK]))
    except PlainError as error:
        st.query_params.pop(LINK)
        show_error(str(error))


def encoded_recipe(recipe: Recipe) -> str:
    return base64.urlsafe_b64encode(
        zlib.compress(recipe.model_dump_json(exclude_none=True).encode(), 9)
    ).decode()


def decoded_recipe(text: str) -> Recipe:
    """Decode the recipe of an address.

    Raises PlainError if the text is not a recipe or exceeds a limit.
    """
    try:
        if len(text) > 2 * MAX_BYTES:
            raise PlainError(
                "The recipe in this address is too long; copy the link again, or open the "
                "recipe as a file."
            )
        content = (
            zlib.decompressobj()
            .decompress(base64.urlsafe_b64decode(text), MAX_BYTES + 1)
            .decode("utf8")
        )
        fields = parse(content)
    except PlainError:
        raise
    except (ValueError, zlib.error):
        raise PlainError(
            "The recipe in this address is damaged; copy the whole link again, or add steps "
            "on the Pipeline page."
        ) from None
    return Recipe.from_dict(fields)
