"""Every number on the screen is explained."""

from dataclasses import fields

import pytest

from engine.results.glossary import GLOSSARY
from engine.results.record import Scores, Summary
from engine.results.tables import LayerRow

NUMBERS = (int, float, int | None, float | None)
SHOWN = {f.name for f in fields(LayerRow) if f.type in NUMBERS} | {
    name for model in (Scores, Summary) for name, field in model.model_fields.items() if field.annotation in NUMBERS
}


def test_there_are_numbers_to_explain():
    assert {"relative_error", "perplexity", "seconds"} <= SHOWN


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_every_number_of_a_run_is_in_the_glossary(name):
    assert name in GLOSSARY


@pytest.mark.parametrize("name", GLOSSARY)
def test_every_meaning_is_one_or_two_whole_sentences(name):
    meaning = GLOSSARY[name].meaning
    assert meaning[0].isupper() and meaning.endswith(".") and 1 <= meaning.count(". ") + 1 <= 2


@pytest.mark.parametrize("name", GLOSSARY)
def test_every_formula_closes_its_braces(name):
    formula = GLOSSARY[name].formula
    assert formula.count("{") == formula.count("}") and "$" not in formula


def test_names_are_told_apart():
    assert len({term.name for term in GLOSSARY.values()}) == len(GLOSSARY)
