"""How a technique works, where it is used: idea, formula, paper, when it fails."""

import streamlit as st

from engine.catalog.technique import Technique


def how_it_works(how: type[Technique]) -> None:
    st.markdown("### How it works")
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(how.idea)
        st.latex(how.formula)
    with right:
        st.markdown("**When it fails**")
        st.markdown(how.fails)
        st.markdown(f"**Read more**: {how.paper}")
