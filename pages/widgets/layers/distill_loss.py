"""Training objective of a student: the loss with its weights, and the teacher's probabilities for
one example.
"""

from typing import Any

import streamlit as st

from engine.errors import PlainError
from engine.queries import SoftTargetsQuery
from engine.recipe import Recipe
from engine.results.schema.query_results import ModelView
from pages.panels import SOFT_TARGETS
from pages.widgets.chart_card import show_panel
from pages.widgets.layers.what_if import shown_recipe
from pages.widgets.queries import cached_ask, literal_markdown, show_error

EXAMPLES = 50  # examples to choose from


def training_objective(
    view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str
) -> None:
    st.markdown("#### Training objective")
    st.latex(loss_formula(step))
    number = st.slider(
        "Example", 1, EXAMPLES, key=f"{key}-example", help="One of the evaluation examples."
    )
    try:
        query = SoftTargetsQuery(
            shown_recipe(view.reference, [], recipe), number - 1, step.get("temperature", 1.0)
        )
        answer = cached_ask(query, view.revision)
    except PlainError as error:
        show_error(str(error))
        return
    show_panel(SOFT_TARGETS, answer.answers, f"{key}-soft")
    st.caption(f"Example: {literal_markdown(answer.example)}")


def loss_formula(step: dict[str, Any]) -> str:
    """LaTeX of the loss with the current weights; terms with weight 0 are left out."""
    if "setting" not in step:  # trained without a teacher
        return r"\mathcal{L} = \mathrm{CE}(y, p)"
    if step["setting"] == "black-box":
        return r"\mathcal{L} = \mathrm{CE}(y_{\text{teacher}}, p)"
    alpha, degrees = step["distill_weight"], step["temperature"]
    other = (
        "other view"
        if step["setting"] == "self" and step.get("views") == "two-views"
        else "teacher"
    )
    terms = {
        r"\mathrm{CE}(y, p)": 1 - alpha,
        (
            rf"{degrees:g}^2\,\mathrm{{KL}}\big(p^{{({degrees:g})}}_{{\text{{{other}}}}} \,\|\, "
            rf"p^{{({degrees:g})}}\big)"
        ): alpha,
        r"\mathcal{L}_{\text{features}}": step["feature_weight"] * (step["features"] != "none"),
        r"\mathcal{L}_{\text{attention}}": step["attention_weight"],
        r"\mathcal{L}_{\text{discriminator}}": step["adversarial_weight"]
        * (step["setting"] == "adversarial"),
    }
    # one term per line for narrow screens
    lines = r" \\ {} + ".join(
        rf"{weight:.3g} \cdot {term}" for term, weight in terms.items() if weight
    )
    return rf"\begin{{gathered}} \mathcal{{L}} = {lines} \end{{gathered}}"
