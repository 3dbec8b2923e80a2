"""The suggested length is the model's maximum for every position scheme."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from engine.errors import PlainError
from engine.models.positions import usable_length
from engine.pipeline.run import run
from tests.answers import model_view
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import SENTENCES, tiny

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "pad_token_id": 1,
}
DECODER = {
    "d_model": 16,
    "decoder_layers": 1,
    "encoder_layers": 1,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "encoder_ffn_dim": 32,
    "vocab_size": 50,
    "pad_token_id": 1,
    "max_position_embeddings": 66,
}
CLASSIFIER, WRITER = AutoModelForSequenceClassification, AutoModelForCausalLM
FROM_THE_TABLE = {  # family -> configuration, model, maximum length; one more token fails
    "roberta": (SIZES | {"max_position_embeddings": 66}, CLASSIFIER, 64),
    "xlm-roberta": (SIZES | {"max_position_embeddings": 66}, CLASSIFIER, 64),
    "camembert": (SIZES | {"max_position_embeddings": 66, "pad_token_id": 3}, CLASSIFIER, 62),
    "mpnet": (SIZES | {"max_position_embeddings": 66}, CLASSIFIER, 64),
    "xmod": (SIZES | {"max_position_embeddings": 66, "default_language": "en_XX"}, CLASSIFIER, 64),
    "bert": (SIZES | {"max_position_embeddings": 66}, CLASSIFIER, 66),
    "electra": (SIZES | {"max_position_embeddings": 66, "embedding_size": 16}, CLASSIFIER, 66),
    "distilbert": (
        {
            "dim": 16,
            "n_layers": 1,
            "n_heads": 2,
            "hidden_dim": 32,
            "vocab_size": 50,
            "max_position_embeddings": 66,
        },
        CLASSIFIER,
        66,
    ),
    "gpt2": (
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 66},
        WRITER,
        66,
    ),
    "opt": (
        SIZES | {"max_position_embeddings": 66, "ffn_dim": 32, "word_embed_proj_dim": 16},
        WRITER,
        66,
    ),
    "biogpt": (SIZES | {"max_position_embeddings": 66}, WRITER, 66),
    "bart": (DECODER, WRITER, 66),
}
BY_THE_CONFIGURATION = {  # longer texts do not fail, so the configuration decides
    "llama": (SIZES | {"max_position_embeddings": 66, "num_key_value_heads": 2}, WRITER, 66),
    "gpt_neox": (SIZES | {"max_position_embeddings": 66}, WRITER, 66),
    "bloom": (
        {"hidden_size": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "pad_token_id": 1},
        WRITER,
        None,
    ),
    "mpt": (
        {
            "d_model": 16,
            "n_layers": 1,
            "n_heads": 2,
            "expansion_ratio": 2,
            "vocab_size": 50,
            "max_seq_len": 66,
            "pad_token_id": 1,
        },
        WRITER,
        66,
    ),
    "xglm": (
        {
            "d_model": 16,
            "num_layers": 1,
            "attention_heads": 2,
            "ffn_dim": 32,
            "vocab_size": 50,
            "pad_token_id": 1,
            "max_position_embeddings": 66,
        },
        WRITER,
        66,
    ),
    "t5": (
        {
            "d_model": 16,
            "d_kv": 8,
            "num_layers": 1,
            "num_heads": 2,
            "d_ff": 32,
            "vocab_size": 50,
            "decoder_start_token_id": 0,
        },
        CLASSIFIER,
        None,
    ),
}


def config_of(family: str, fields: dict):
    return AutoConfig.for_model(family, **fields)


def length_read(model, length: int) -> bool:
    tokens = torch.full((1, length), 5)
    end = getattr(model.config, "eos_token_id", None)
    tokens[0, -1] = end if end and end < 50 else 2  # some classifiers read the last token
    try:
        with torch.no_grad():
            model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    except (IndexError, RuntimeError):
        return False
    return True


@for_each("family", FROM_THE_TABLE)
def test_the_limit_works_and_one_token_more_does_not(family):
    fields, kind, due = FROM_THE_TABLE[family]
    config = config_of(family, fields)
    model = kind.from_config(config).eval()
    assert (
        usable_length(config) == due and length_read(model, due) and not length_read(model, due + 1)
    )


@for_each("family", BY_THE_CONFIGURATION)
def test_where_positions_are_computed_the_configuration_decides(family):
    fields, kind, due = BY_THE_CONFIGURATION[family]
    config = config_of(family, fields)
    assert usable_length(config) == due and length_read(kind.from_config(config).eval(), due or 66)


@pytest.mark.parametrize(
    ("setting", "role"),
    [({"student": "other"}, "student"), ({"setting": "several", "teachers": "other"}, "teacher")],
)
def test_a_model_shorter_than_the_training_texts_is_refused(setting, role, tmp_path):
    other = str(tiny("gpt2", tmp_path / "other", n_positions=24))
    step = {"technique": "distill", "steps": 2, "batch": 4} | {
        name: other if value == "other" else value for name, value in setting.items()
    }
    recipe = recipe_for("gpt2", tiny("gpt2", tmp_path / "model"), tmp_path / "data", step)
    recipe = recipe.model_copy(update={"task": recipe.task.model_copy(update={"context": 24})})
    with pytest.raises(
        PlainError,
        match=(
            f"The {role} .* reads at most 24 tokens, and "
            r"Calibration context \(calibration\.context\) is 32; set it to at "
            "most 24"
        ),
    ):
        run(recipe)


def test_the_limit_of_a_large_model_takes_no_memory_and_no_random_numbers():
    state = torch.get_rng_state()
    large = {
        "hidden_size": 8192,
        "num_hidden_layers": 2,
        "num_attention_heads": 64,
        "intermediate_size": 28672,
        "vocab_size": 128_000,
    }
    assert (
        usable_length(
            config_of("xlm-roberta-xl", large | {"max_position_embeddings": 514, "pad_token_id": 1})
        )
        == 512
    )
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "step",
    [
        {"technique": "round-to-nearest"},
        {"technique": "gptq"},
        {"technique": "distill", "steps": 2, "batch": 4},
    ],
    ids=lambda step: step["technique"],
)
def test_the_suggested_length_runs_and_a_longer_one_is_refused(step, tmp_path):
    model = tiny("roberta", tmp_path / "model")
    recipe = recipe_for("roberta", model, tmp_path / "data", step)
    # more tokens than any limit here
    long = [{"text": " ".join(SENTENCES), "label": number % 3} for number in range(24)]
    (tmp_path / "data" / "texts.json").write_text(json.dumps(long))
    assert model_view(str(model)).longest == 64 == recipe.task.length
    run(recipe)
    with pytest.raises(PlainError, match="at most 64"):
        run(recipe.model_copy(update={"task": recipe.task.model_copy(update={"length": 66})}))
