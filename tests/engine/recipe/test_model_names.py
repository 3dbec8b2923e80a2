"""Names of models."""

import pytest

from engine.errors import PlainError
from engine.recipe.model_names import BUNDLED_MODELS, ModelName
from tests.cases import for_each
from tests.sentences import assert_one_clear_sentence


@pytest.mark.parametrize("bundled", BUNDLED_MODELS.values(), ids=BUNDLED_MODELS)
def test_every_bundled_model_is_found_by_its_reference(bundled):
    assert ModelName.parse(bundled.reference) == ModelName("bundled", bundled.name)


def test_a_hub_id_may_pin_a_revision():
    assert (
        ModelName.parse("a/b@main") == ModelName("hub", "a/b", "main")
        and ModelName.parse("gpt2").revision is None
    )


def test_a_directory_is_known_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    assert ModelName.parse(tmp_path.name) == ModelName("directory", str(tmp_path))


@for_each(
    "text",
    [
        "bundled:nothing",
        "a/b/c",
        "",
        "a b",
        "no/such/folder",
        "a@",
        "../../etc/passwd",
        "é" * 500,
        "a" * 5000,
        "~no-such-user/x",
        " ",
    ],
)
def test_an_unknown_bundled_model_is_refused_with_the_choices(text):
    with pytest.raises(PlainError) as error:
        ModelName.parse(text)
    assert_one_clear_sentence(str(error.value))


def test_a_long_wrong_name_is_not_repeated_in_full():
    with pytest.raises(PlainError) as error:
        ModelName.parse("bundled:" + "x" * 10_000)
    assert len(str(error.value)) < 300
