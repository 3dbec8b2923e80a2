"""Teacher and student with the same tokenizer and differently padded embeddings learn over their
shared tokens.
"""

import math

import pytest
import torch
from torch.nn.functional import kl_div

from engine.errors import PlainError
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.techniques.distillation.distill import sequence_level as blackbox
from engine.techniques.training.vocabulary import restrict_to_shared_tokens, token_count
from engine.training.losses import teacher_loss
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import VOCABULARY, tiny

NARROW, WIDE = VOCABULARY + 3, VOCABULARY + 32
SHORT = {"technique": "distill", "steps": 2, "batch": 4}
SETTINGS = {
    "answers": {},
    "states": {"features": "mse", "attention_weight": 0.5},
    "online": {"setting": "online"},
    "several": {"setting": "several"},
    "adversarial": {"setting": "adversarial"},
    "two views": {"setting": "self", "views": "two-views"},
    "black box": {"setting": "black-box", "written": 4, "prompt": 8},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    sizes = {"narrow": NARROW, "wide": WIDE, "exact": VOCABULARY}
    return {
        name: str(tiny("llama", tmp_path_factory.mktemp(name), vocab_size=size, seed=size))
        for name, size in sizes.items()
    }


def recipe(models, tmp_path, teacher, *steps):
    return recipe_for("llama", models[teacher], tmp_path / "data", *steps)


@for_each(("teacher", "student"), [("narrow", "wide"), ("wide", "narrow")])
@for_each("setting", SETTINGS)
def test_every_setting_works_with_padded_vocabularies(setting, teacher, student, models, tmp_path):
    step = SHORT | SETTINGS[setting] | {"student": models[student]}
    step |= {"teachers": models["exact"]} if setting == "several" else {}
    outcome = run(recipe(models, tmp_path, teacher, step))
    scores = outcome.summary.result
    assert math.isfinite(scores.perplexity) and 0 <= scores.agreement <= 1
    assert (
        outcome.tables.curves["value"].notna().all()
        and len(outcome.tables.similarity)
        and len(outcome.tables.verdicts) == 4
    )


def test_a_later_step_may_have_the_first_model_as_its_teacher(models, tmp_path):
    taught = {"technique": "qat", "steps": 2, "batch": 4, "distill_weight": 0.5}
    assert (
        run(
            recipe(models, tmp_path, "wide", SHORT | {"student": models["narrow"]}, taught)
        ).summary.result.perplexity
        > 1
    )


def test_the_loss_is_the_divergence_of_the_distributions_over_shared_tokens():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, NARROW), torch.randn(2, 5, WIDE)
    ours, theirs = (
        (each[..., :VOCABULARY].flatten(0, 1) / 2).softmax(-1) for each in (student, teacher)
    )
    due = 4 * kl_div(ours.log(), theirs, reduction="batchmean")
    torch.testing.assert_close(
        teacher_loss(*restrict_to_shared_tokens([student, teacher], VOCABULARY), 2.0), due
    )
    teacher[..., VOCABULARY:] += 100  # logits beyond the tokenizer's tokens are meaningless
    torch.testing.assert_close(
        teacher_loss(*restrict_to_shared_tokens([student, teacher], VOCABULARY), 2.0), due
    )


def test_logits_of_equal_width_are_not_cut(models):
    same = [torch.zeros(1, 2, WIDE)] * 2
    assert (
        restrict_to_shared_tokens(same, VOCABULARY) is same
        and token_count(resolve_model(models["wide"])) == VOCABULARY
    )


def test_a_teacher_generates_only_tokens_of_its_student(models, tmp_path, monkeypatch):
    texts, continued = [], blackbox.sample_continuations
    monkeypatch.setattr(
        blackbox, "sample_continuations", lambda *args: texts.append(continued(*args)) or texts[-1]
    )
    run(
        recipe(
            models, tmp_path, "wide", SHORT | SETTINGS["black box"] | {"student": models["narrow"]}
        )
    )
    assert texts and max(int(each.max()) for each in texts) < VOCABULARY


def test_tokenizers_that_differ_are_refused_in_one_sentence(models, tmp_path):
    other = tiny("llama", tmp_path / "other", vocab_size=NARROW)
    (other / "tokenizer.json").write_text(
        (other / "tokenizer.json").read_text().replace('"<mask>"', '"<blank>"')
    )
    with pytest.raises(PlainError, match="tokenizes text differently"):
        run(recipe(models, tmp_path, "wide", SHORT | {"student": str(other)}))
