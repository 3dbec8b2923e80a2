"""Every number on the screen is explained."""

from dataclasses import fields, is_dataclass

from engine.results.analysis.per_step_scores import STEP_SCORE_COLUMNS
from engine.results.schema import query_results as answers
from engine.results.schema import tables
from engine.results.schema.glossary import GLOSSARY
from engine.results.schema.record import Scores, Summary
from engine.results.schema.run_tables import TABLES
from engine.results.schema.tables import LayerRow
from tests.cases import for_each

NUMBERS = (int, float, int | None, float | None)
SHOWN = {f.name for f in fields(LayerRow) if f.type in NUMBERS} | {
    name
    for model in (Scores, Summary)
    for name, field in model.model_fields.items()
    if field.annotation in NUMBERS
}
ROWS = [declared.row for declared in TABLES.values()] + [
    row
    for module in (tables, answers)
    for row in vars(module).values()
    if isinstance(row, type) and is_dataclass(row)
]
MEASURED = (
    SHOWN
    | {field.name for row in ROWS for field in fields(row) if field.type in NUMBERS}
    | set(STEP_SCORE_COLUMNS)
)


def test_there_are_numbers_to_explain():
    assert {"relative_error", "perplexity", "seconds"} <= SHOWN


@for_each("name", sorted(SHOWN))
def test_every_number_of_a_run_is_in_the_glossary(name):
    assert name in GLOSSARY


@for_each("name", GLOSSARY)
def test_every_meaning_is_one_or_two_whole_sentences(name):
    meaning = GLOSSARY[name].meaning
    assert meaning[0].isupper() and meaning.endswith(".") and 1 <= meaning.count(". ") + 1 <= 2


@for_each("name", GLOSSARY)
def test_every_formula_closes_its_braces(name):
    formula = GLOSSARY[name].formula
    assert formula.count("{") == formula.count("}") and "$" not in formula


@for_each("name", GLOSSARY)
def test_every_term_is_a_number_that_some_record_or_table_has(name):
    assert name in MEASURED


def test_names_of_terms_are_unique():
    assert len({term.name for term in GLOSSARY.values()}) == len(GLOSSARY)
