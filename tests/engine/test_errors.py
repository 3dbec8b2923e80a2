"""Messages of invalid options."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError

from engine.config.registry import TECHNIQUES
from engine.errors import option_name, plain_error
from engine.recipe import Layers, Recipe
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    LanguageModeling,
    MaskedLanguageModeling,
    TextClassification,
    Training,
)
from tests.cases import for_each
from tests.sentences import assert_one_clear_sentence

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = (
    *(LanguageModeling, MaskedLanguageModeling, TextClassification, ImageClassification),
    *(Calibration, Training, Layers),
)


def test_a_technique_without_a_recipe_is_refused_with_the_same_message():
    technique = TECHNIQUES["round-to-nearest"]
    for fields, sentence in (
        ({"bits": 1}, "Bits: 1 is not allowed; give a whole number from 2 to 8."),
        ({"bit": 1}, "Round to nearest: there is no option"),
    ):
        with pytest.raises(ValidationError) as error:
            technique(**fields)
        assert str(plain_error(error.value, technique)).startswith(sentence)


@for_each(
    "fields",
    [
        {"steps": [{}]},
        {"steps": ["x"]},
        {"steps": [{"technique": "x"}]},
        {"a": 1},
        {1: 1},
        {"seed": "x"},
        {"model": []},
    ],
)
def test_an_error_without_the_class_is_one_clear_sentence(fields):
    with pytest.raises(ValidationError) as error:
        Recipe.model_validate(fields)
    assert_one_clear_sentence(str(plain_error(error.value)))


class Bounds(BaseModel):
    above: float = Field(1, gt=0)
    between: float = Field(1, gt=0, lt=2.5)
    below: int = Field(1, lt=10)
    few: list[int] = Field([1], min_length=1, max_length=3)
    given: int


@for_each(
    ("fields", "sentence"),
    [
        ({"above": 0}, "Above: 0 is not allowed; give a number above 0."),
        ({"between": 3}, "Between: 3 is not allowed; give a number above 0 and below 2.5."),
        ({"below": 10}, "Below: 10 is not allowed; give a whole number of at most 9."),
        ({"few": []}, "Few: a list is not allowed; give a list of 1 to 3 items."),
        ({"given": "x" * 500}, f"Given: '{'x' * 60}...' is not allowed; give a whole number."),
        ({}, "Given: it is missing; give a whole number."),
    ],
)
def test_bounds_of_every_kind_have_words(fields, sentence):
    with pytest.raises(ValidationError) as error:
        Bounds(**({"given": 1} if fields and "given" not in fields else {}) | fields)
    assert str(plain_error(error.value, Bounds)) == sentence


def test_options_are_named_by_label_and_key():
    assert option_name(TECHNIQUES["round-to-nearest"], "bits") == "Bits (bits)"
    assert option_name(TextClassification(), "length") == "Maximum length (task.length)"
    assert option_name(Layers, "skip") == "Layers to skip (layers.skip)"


def test_every_class_that_an_error_names_an_option_of_has_it():
    """A wrong key would be a KeyError in place of the error."""
    calls = re.compile(r"option_name\((\w+), ['\"](\w+)['\"]\)")
    classes = {model.__name__: model for model in (*TECHNIQUES.values(), *SECTIONS)}
    named = [
        match
        for path in (ROOT / "engine").rglob("*.py")
        for match in calls.findall(path.read_text())
    ]
    checked = [(classes[name], key) for name, key in named if name in classes]
    assert len(checked) > 20
    assert [(model, key) for model, key in checked if key not in model.model_fields] == []
