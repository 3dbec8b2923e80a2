"""Id of the page's visitor, from a secret cookie of each browser on a shared server."""

import secrets

import streamlit as st

from engine.runtime import settings
from engine.session.visitors import visitor_id
from pages.widgets.server_guard import COOKIE


def visitor() -> str:
    """Return the visitor's id, which survives a refresh; empty on a server that is not shared.

    Without cookies the id lasts as long as the page.
    """
    if settings.sharing() is None:
        return ""
    secret = st.context.cookies.get(COOKIE) or st.session_state.setdefault(
        "visitor-secret", secrets.token_hex(16)
    )
    return visitor_id(secret)
