"""Search, filters, sort order and paging of the list of runs, kept while the user visits other
pages.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.results.store.run_query import Order, RunPage, RunQuery
from pages.widgets.recipes.pipeline_editor import FAMILIES

ORDERS: dict[Order, str] = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "smallest": "Smallest file first",
    "compression": "Highest compression first",
    "quality": "Least quality lost first",
    "model": "Model, A to Z",
    "setting": "Setting, A to Z",
}
SEARCH_HELP = (
    "Words in the model, technique, setting, task, data, notes, status or id; all must occur."
)
ALL = ""  # a filter that matches every run


def query_from(state_key: str, measured: bool = False) -> RunQuery:
    """Return the user's last query, stored in the session state under ``state_key``."""
    return st.session_state.get(state_key) or RunQuery(measured=measured)


def filter_runs(query: RunQuery, page: RunPage, key: str) -> None:
    """Draw the widgets of a query, which take effect when the page runs again.

    ``page`` is the current result; its models, techniques and statuses are the choices.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Search runs",
            query.search,
            key=f"{key}-search",
            help=SEARCH_HELP,
            placeholder="for example: gptq docs-lm",
            max_chars=200,
            icon=":material/search:",
            on_change=apply_change,
            args=(key, query, "search"),
            width=320,
        )
        filter_select("Sort by", "order", list(ORDERS), ORDERS.get, query, key, width=220)
        active = sum(
            bool(value) for value in (query.family, query.technique, query.model, query.status)
        )
        with st.popover(
            f"Filters ({active})" if active else "Filters", icon=":material/filter_list:"
        ):
            filter_select(
                "Family",
                "family",
                [ALL, *FAMILIES],
                lambda name: FAMILIES.get(name, "All families"),
                query,
                key,
            )
            filter_select(
                "Technique",
                "technique",
                with_chosen(page.techniques, query.technique),
                technique_title,
                query,
                key,
            )
            filter_select(
                "Model",
                "model",
                with_chosen(page.models, query.model),
                lambda name: name or "All models",
                query,
                key,
            )
            if not query.measured:
                filter_select(
                    "Status",
                    "status",
                    with_chosen(page.statuses, query.status),
                    lambda name: name.capitalize() or "All statuses",
                    query,
                    key,
                )
            st.button(
                "Clear search and filters",
                key=f"{key}-clear",
                on_click=clear_filters,
                args=(key, query),
            )


def with_chosen(choices: tuple[str, ...], chosen: str) -> list[str]:
    return list(dict.fromkeys([ALL, *choices, chosen]))


def technique_title(name: str) -> str:
    return TECHNIQUES[name].title if name in TECHNIQUES else name or "All techniques"


def filter_select(
    title: str,
    field: str,
    options: list[str],
    label_of: Callable[[str], str],
    query: RunQuery,
    key: str,
    **widget_options: Any,
) -> None:
    value = getattr(query, field)
    st.selectbox(
        title,
        options,
        options.index(value),
        format_func=label_of,
        key=f"{key}-{field}",
        on_change=apply_change,
        args=(key, query, field),
        **widget_options,
    )


def apply_change(key: str, query: RunQuery, field: str) -> None:
    """Apply a changed widget before the page runs again; the list starts at its first page."""
    st.session_state[f"{key}-query"] = replace(
        query, **{field: st.session_state[f"{key}-{field}"]}, after=None
    )
    st.session_state.pop(f"{key}-pages", None)


def clear_filters(key: str, query: RunQuery) -> None:
    st.session_state[f"{key}-query"] = RunQuery(measured=query.measured, order=query.order)
    for field in ("search", "family", "technique", "model", "status"):
        st.session_state[f"{key}-{field}"] = ALL
    st.session_state.pop(f"{key}-pages", None)


def page_buttons(query: RunQuery, page: RunPage, key: str) -> None:
    """Draw the page number and the buttons for the previous and next page.

    A page starts after the last row of the one before it, so it does not change when new runs
    arrive.
    """
    pages = st.session_state.get(f"{key}-pages", [])
    if not pages and not page.has_more:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Previous",
            key=f"{key}-previous",
            icon=":material/chevron_left:",
            disabled=not pages,
            on_click=previous_page,
            args=(key, query),
        )
        st.button(
            "Next",
            key=f"{key}-next",
            icon=":material/chevron_right:",
            disabled=not page.has_more,
            on_click=next_page,
            args=(key, query, page),
        )
        st.caption(
            f"Page {len(pages) + 1} of {max(1, -(-page.matching // query.limit)):,} · "
            f"{page.matching:,} of {page.total:,} runs"
        )


def first_page(query: RunQuery, key: str) -> RunQuery:
    st.session_state.pop(f"{key}-pages", None)
    first = st.session_state[f"{key}-query"] = replace(query, after=None)
    return first


def next_page(key: str, query: RunQuery, page: RunPage) -> None:
    st.session_state[f"{key}-pages"] = [*st.session_state.get(f"{key}-pages", []), query.after]
    st.session_state[f"{key}-query"] = replace(query, after=page.rows[-1].position)


def previous_page(key: str, query: RunQuery) -> None:
    *before, after = st.session_state[f"{key}-pages"]
    st.session_state[f"{key}-pages"] = before
    st.session_state[f"{key}-query"] = replace(query, after=after)
