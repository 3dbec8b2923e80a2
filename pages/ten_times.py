"""Ten times smaller: a teacher, its student, and the student in 4 bits, each with its size and what it still knows."""

import streamlit as st

from pages.parts.forecast import forecast_line
from pages.parts.journey import RECIPE, journey, outcome_of, own_run, report, stations
from pages.parts.run_card import run_card, start

st.title("Ten times smaller")
st.markdown(
    "Two ideas stacked: a smaller model that learns from a larger one, and fewer bits for what is left of it. Follow one model through "
    "three stations, and see what each saves and what it costs. The name is a well-known article's; counted in bytes, it was seven times there "
    "as well."
)
recipe = journey()
run = own_run(recipe)
known, source = outcome_of(run)
stations(known)
if not known.empty:
    st.markdown("### Before and after")
    report(known, source, "ten-times")
st.markdown("### Run it yourself")
st.markdown(
    "Nothing is looked up: a new student learns on this machine while you watch, some minutes on two idle cores. Cancel while it learns, and the "
    "best it has found goes on to the next station."
)
forecast_line(recipe)
go, take = st.columns(2)
if go.button("Run the journey", type="primary", key="ten-times-run", width="stretch", icon=":material/play_arrow:"):
    start(recipe)
    st.rerun()
take.download_button("Recipe as YAML", RECIPE.read_text("utf-8"), RECIPE.name, key="ten-times-recipe", width="stretch", icon=":material/download:")
if run:
    run_card(run, "ten-times")
st.caption(
    "After Shaw Talebi, *Compressing Large Language Models (LLMs)*, Towards Data Science, 2024, which took a BERT that recognizes phishing "
    "from 438 MB to 62.7 MB. Its own models and data are in `assets/recipes/ten-times-hub.yaml`, for those with a network: "
    "`python -m engine run assets/recipes/ten-times-hub.yaml`."
)
