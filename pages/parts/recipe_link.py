"""The recipe on the page in the page's address: a refresh keeps it, and the link shares it."""

import base64
import json
import zlib

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from pages.parts.plainly import said
from pages.parts.recipe_file import take_over

LINK = "recipe"
MOST_BYTES = 100_000  # of a recipe as text; one in an address has a few thousand


def link_to(recipe: Recipe | None, steps: list[dict]) -> None:
    """What the address holds from now on: this recipe, nothing without steps; while a choice is not allowed, what it held."""
    if not steps:
        st.query_params.pop(LINK, None)
    elif recipe:
        st.query_params[LINK] = packed(recipe)


def open_link() -> None:
    """Takes over what the address holds when a browser session begins. To be called before anything is drawn."""
    if LINK not in st.query_params or "chain" in st.session_state:
        return
    try:
        take_over(unpacked(st.query_params[LINK]))
    except PlainError as error:
        st.query_params.pop(LINK)
        said(str(error))


def packed(recipe: Recipe) -> str:
    return base64.urlsafe_b64encode(zlib.compress(recipe.model_dump_json(exclude_none=True).encode(), 9)).decode()


def unpacked(text: str) -> Recipe:
    """Raises PlainError for what is no recipe, or would be too large."""
    try:
        content = zlib.decompressobj().decompress(base64.urlsafe_b64decode(text), MOST_BYTES)
        fields = json.loads(content)
    except (ValueError, zlib.error, RecursionError):
        raise PlainError("The recipe in this address is damaged; copy the whole link once more, or add steps on the Pipeline page.") from None
    return Recipe.of(fields)
