"""What a student is held to: the loss with its numbers, and the teacher's own words on one example."""

from typing import Any

import streamlit as st

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.answers import ModelView, SoftTargets
from pages.panels import SOFT_TARGETS
from pages.parts.plainly import escaped, kept_answer, said
from pages.parts.show import show
from pages.parts.what_if import data_of

EXAMPLES = 50  # that a person may choose from


def teaching(view: ModelView, step: dict[str, Any], recipe: Recipe | None, key: str) -> None:
    st.markdown("#### What is the student held to?")
    st.latex(loss_in_numbers(step))
    number = st.slider("Example", 1, EXAMPLES, key=f"{key}-example", help="One of the examples that quality is measured on.")
    try:
        answer: SoftTargets = kept_answer(
            "soft_targets:soft_targets", view.revision, model=view.reference, measured=data_of(recipe), example=number - 1,
            temperature=step.get("temperature", 1.0),
        )  # fmt: skip
    except PlainError as error:
        said(str(error))
        return
    show(SOFT_TARGETS, answer.answers, f"{key}-soft")
    st.caption(f"The example: {escaped(answer.example)}")


def loss_in_numbers(step: dict[str, Any]) -> str:
    """Every term with the weight it has now; those of weight 0 are left out."""
    if step["technique"] == "fine-tune" or step["setting"] == "black-box":
        return r"\mathcal{L} = \mathrm{CE}(y, p)" if step["technique"] == "fine-tune" else r"\mathcal{L} = \mathrm{CE}(y_{\text{teacher}}, p)"
    alpha, degrees = step["distill_weight"], step["temperature"]
    other = "other view" if step["setting"] == "self" and step.get("views") == "two-views" else "teacher"
    terms = {
        r"\mathrm{CE}(y, p)": 1 - alpha,
        rf"{degrees:g}^2\,\mathrm{{KL}}\big(p^{{({degrees:g})}}_{{\text{{{other}}}}} \,\|\, p^{{({degrees:g})}}\big)": alpha,
        r"\mathcal{L}_{\text{features}}": step["feature_weight"] * (step["features"] != "none"),
        r"\mathcal{L}_{\text{attention}}": step["attention_weight"],
        r"\mathcal{L}_{\text{discriminator}}": step["adversarial_weight"] * (step["setting"] == "adversarial"),
    }
    lines = r" \\ {} + ".join(rf"{weight:.3g} \cdot {term}" for term, weight in terms.items() if weight)  # one a line, as phones are narrow
    return rf"\begin{{gathered}} \mathcal{{L}} = {lines} \end{{gathered}}"
