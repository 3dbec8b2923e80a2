"""X-MOD has layers for each language, of which a text reaches those of one."""

import pytest
import transformers

from engine.models.loading import config_of, resolve_model
from engine.models.positions import usable_length
from engine.pipeline.run import run
from tests.answers import forecast, model_view
from tests.architectures import BERT, model_builder, save_random_model
from tests.recipes import recipe_for

SIZES = {**BERT, "max_position_embeddings": 66, "pad_token_id": 1}


@pytest.fixture
def folder(tmp_path):
    build = model_builder(
        "Xmod", "ForSequenceClassification", **SIZES, languages=["de_DE", "en_XX"]
    )
    return save_random_model(build, tmp_path / "model", "bert")


def test_the_first_language_is_read_where_none_is_the_default_and_a_note_says_so(folder):
    at = resolve_model(str(folder))
    assert config_of(at).default_language == "de_DE" and usable_length(config_of(at)) == 64
    assert any(
        note.startswith("Text is read as de_DE, the first of the model's languages")
        for note in model_view(str(folder)).notes
    )
    named = transformers.XmodConfig(**SIZES, languages=["de_DE", "en_XX"], default_language="en_XX")
    named.architectures = ["XmodForSequenceClassification"]
    named.save_pretrained(folder)
    again = resolve_model(str(folder))
    assert config_of(again).default_language == "en_XX" and not again.notes


def test_layers_of_other_languages_are_rounded_without_data(folder, tmp_path, bytes_alone):
    recipe = recipe_for(
        "roberta", folder, tmp_path / "data", {"technique": "gptq", "group_size": 16}
    )
    outcome = run(recipe)
    rows = outcome.tables.layers.set_index("name")
    other = rows[rows.index.str.contains("en_XX")]
    assert (
        len(other)
        and other.note.str.contains("no calibration token was routed to it").all()
        and (other.technique == "gptq").all()
    )
    assert (
        not rows[rows.index.str.contains("de_DE")].note.str.contains("no calibration token").any()
    )
    assert forecast(recipe).size_bytes == outcome.summary.result.size_bytes
