"""Ten times smaller page: teacher, student and 4-bit student with their sizes and accuracies."""

import streamlit as st

from pages.widgets.forms.forecast import forecast_line
from pages.widgets.queries import show_errors
from pages.widgets.runs.run_card import run_card, start_run
from pages.widgets.runs.ten_times import (
    RECIPE,
    example_recipe,
    own_run,
    score_tables,
    scores_and_source,
    stage_cards,
)

st.title("Ten times smaller")
st.markdown(
    "Distill the model into a smaller student, then quantize the student to 4 bits. "
    '("10x" is from the title of the article this follows; measured in bytes, both reach about 7x.)'
)
recipe = example_recipe()
run = own_run(recipe)
scores, source = scores_and_source(run)
with show_errors("This run"):
    stage_cards(scores)
    if not scores.empty:
        st.markdown("### Before and after")
        score_tables(scores, source, "ten-times")
st.markdown("### Run it yourself")
st.markdown(
    "This trains a new student on your machine, about four minutes on two cores. If you cancel, "
    "the best checkpoint so far continues to the next step."
)
forecast_line(recipe)
run_column, download_column = st.columns(2)
if run_column.button(
    "Run distillation and quantization",
    type="primary",
    key="ten-times-run",
    width="stretch",
    icon=":material/play_arrow:",
):
    start_run(recipe)
    st.rerun()
download_column.download_button(
    "Recipe as YAML",
    RECIPE.read_text("utf-8"),
    RECIPE.name,
    key="ten-times-recipe",
    width="stretch",
    icon=":material/download:",
)
if run:
    run_card(run, "ten-times")
st.caption(
    "Based on Shaw Talebi, *Compressing Large Language Models (LLMs)*, Towards Data Science, 2024, "
    "which compressed a BERT phishing classifier from 438 MB to 62.7 MB. To run the article's own "
    "models and data (needs a network): `python -m engine run assets/recipes/ten-times-hub.yaml`."
)
