"""Every technique explains itself and its options."""

import pytest
from pydantic import ValidationError

from engine.config.registry import TECHNIQUES
from tests.cases import for_each


def test_meanings_of_newer_options_are_valid_settings():
    for technique in TECHNIQUES.values():
        assert technique.meaning_if_absent.keys() <= technique.model_fields.keys()
        technique(**technique.meaning_if_absent)


@for_each("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_every_technique_explains_itself(technique):
    for words in (
        technique.title,
        technique.summary,
        technique.explanation,
        technique.formula,
        technique.limitations,
        technique.paper,
    ):
        assert words.strip()
    assert "http" in technique.paper and technique.summary.endswith(".") and technique().label()


@for_each("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_every_option_has_what_a_form_needs(technique):
    for name, schema in technique.model_json_schema()["properties"].items():
        assert name == "technique" or (
            schema["title"]
            and schema["description"].endswith(".")
            and {"advanced", "when", "unless"} <= schema.keys()
        ), name


@for_each("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_every_option_depends_on_options_and_values_that_exist(technique):
    properties = technique.model_json_schema()["properties"]
    for schema in properties.values():
        for other, needed in [*schema.get("when", {}).items(), *schema.get("unless", {}).items()]:
            known = properties[other].get(
                "enum", [True, False] if properties[other].get("type") == "boolean" else needed
            )
            assert set(needed) <= set(known)


@for_each("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_a_technique_cannot_be_changed_once_made(technique):
    with pytest.raises(ValidationError):
        technique().technique = "other"


def test_techniques_go_by_their_own_id():
    assert all(technique().technique == name for name, technique in TECHNIQUES.items())
