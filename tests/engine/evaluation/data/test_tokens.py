"""Tokens of texts, with and without a BOS token."""

import math

import numpy as np
import pytest
import torch
from tokenizers import processors

from engine.errors import PlainError
from engine.evaluation import calibration_batches, evaluate
from engine.evaluation.data.examples import Text
from engine.evaluation.data.tokens import (
    first_target,
    leading_text,
    leading_tokens,
    text_tokens,
    token_windows,
    window_prefix,
)
from engine.measurement.student_errors import evaluation_set
from engine.models.loading import load_pretrained, resolve_model, tokenizer_of
from engine.recipe.tasks import Calibration, LanguageModeling
from engine.results.store.run_folder import recipe_in
from tests.cases import for_each
from tests.tiny import BOS, SENTENCES, tiny, tokenizer

WORDS = " ".join(SENTENCES * 20)
BEFORE = {"single": "<s> $A", "special_tokens": [("<s>", BOS)]}

TOKENIZER = tokenizer("llama")
TEXT = Text([*SENTENCES] * 300, "many", "fingerprint", "\n\n\n")


@for_each("tokens", [2, 100, 5000, 10**6])
def test_the_first_tokens_are_those_of_the_whole_text(tokens):
    whole = TOKENIZER("\n\n\n".join(TEXT.texts), add_special_tokens=False)["input_ids"]
    assert leading_tokens(TEXT, TOKENIZER, tokens).tolist() == whole[:tokens]


def test_no_more_is_tokenized_than_is_needed():
    read = []

    def counting(text, **options):
        read.append(len(text))
        return TOKENIZER(text, **options)

    leading_tokens(TEXT, counting, 100)
    assert sum(read) < 2000 < len(leading_text(TEXT, 10**9))


def test_one_text_is_joined_to_nothing():
    assert leading_text(Text(["abc"], "", ""), 10) == "abc"
    assert leading_text(Text(["abc", "d"], "", "", "\n"), 10) == "abc\nd"
    assert leading_text(Text(["abc", "d"], "", "", "\n"), 4) == "abc\n"


def test_cached_tokens_belong_to_one_text_and_tokenizer(monkeypatch):
    first = text_tokens(TEXT, TOKENIZER, 50)
    monkeypatch.setattr("engine.evaluation.data.tokens.leading_tokens", lambda *asked: np.zeros(1))
    assert np.array_equal(text_tokens(TEXT, TOKENIZER, 50), first)
    assert len(text_tokens(TEXT, TOKENIZER, 51)) == 1
    assert len(text_tokens(Text(TEXT.texts, "", "another", "\n\n\n"), TOKENIZER, 50)) == 1
    assert len(text_tokens(TEXT, tokenizer("bert"), 50)) == 1


def save_model(folder, architecture="gemma", **template):
    """Save a model whose tokenizer adds special tokens around a text."""
    path = tiny(architecture, folder / architecture)
    if template:
        wrapped = tokenizer("llama")
        wrapped.backend_tokenizer.post_processor = processors.TemplateProcessing(**template)
        wrapped.save_pretrained(path)
    return resolve_model(str(path))


@pytest.fixture
def gemma(tmp_path):
    return save_model(tmp_path, **BEFORE)


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a.txt").write_text(WORDS)
    return str(tmp_path / "a.txt")


def by_hand(folder, windows, first) -> float:
    """Mean loss of the predicted tokens per window, with transformers only."""
    model = load_pretrained(folder).float()
    losses = []
    for window in windows:
        logits = model(window[None]).logits[0].log_softmax(-1)
        losses += [-logits[place - 1, window[place]].item() for place in range(first, len(window))]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("bos", ["auto", "always"])
def test_perplexity_with_bos_equals_a_computation_by_hand(bos, gemma, text):
    task = LanguageModeling(text=text, context=16, tokens=400, bos=bos)
    found = evaluate(task, load_pretrained(gemma).float(), gemma)
    ids = tokenizer("llama")(WORDS, add_special_tokens=False)["input_ids"][:400]
    windows = torch.tensor(
        [[BOS, *ids[start : start + 15]] for start in range(0, len(ids) - 14, 15)]
    )
    assert found.scores["loss"] == pytest.approx(by_hand(gemma, windows, 1), rel=1e-5)
    assert found.scores["perplexity"] == pytest.approx(math.exp(found.scores["loss"]))
    assert (found.protocol.windows, found.protocol.targets) == (len(windows), 15 * len(windows))
    assert (
        "each beginning with <s> (context, not scored), 15 targets each" in found.protocol.measure
    )
    assert len(found.guesses) == found.protocol.targets


def test_never_gives_the_number_of_versions_without_the_option(gemma, text):
    task = LanguageModeling(text=text, context=16, tokens=400, bos="never")
    found = evaluate(task, load_pretrained(gemma).float(), gemma)
    ids = tokenizer("llama")(WORDS, add_special_tokens=False)["input_ids"][:400]
    windows = torch.tensor(ids[: len(ids) // 16 * 16]).view(-1, 16)
    assert found.scores["loss"] == pytest.approx(by_hand(gemma, windows, 1), rel=1e-5)
    assert found.protocol.measure.endswith(
        "and cut into windows of 16 that do not overlap, 15 targets each."
    )


def test_a_tokenizer_without_bos_has_the_same_protocol_as_before(tmp_path, text):
    """Auto and never give the same protocol, so runs are comparable."""
    llama = save_model(tmp_path, "llama")
    auto, never = (
        evaluate(
            LanguageModeling(text=text, context=16, tokens=400, bos=bos),
            load_pretrained(llama),
            llama,
        )
        for bos in ("auto", "never")
    )
    assert (
        auto.scores == never.scores
        and auto.protocol == never.protocol
        and np.array_equal(auto.guesses, never.guesses)
    )
    assert window_prefix(tokenizer_of(llama), "always") == (BOS,)


def test_the_bundled_language_model_adds_none():
    assert window_prefix(tokenizer_of(resolve_model("bundled:docs-lm")), "auto") == ()


def test_two_tokens_before_a_text_are_both_context(tmp_path, text):
    two = save_model(
        tmp_path,
        single="<mask> <s> $A </s>",
        special_tokens=[("<mask>", 3), ("<s>", BOS), ("</s>", 2)],
    )
    found = evaluate(
        LanguageModeling(text=text, context=16, tokens=400), load_pretrained(two).float(), two
    )
    ids = tokenizer("llama")(WORDS, add_special_tokens=False)["input_ids"][:400]
    windows = token_windows(np.array(ids, dtype=np.int32), 16, "", (3, BOS))
    assert (
        windows[:, :2].tolist() == [[3, BOS]] * len(windows) and windows[0, 2:].tolist() == ids[:14]
    )
    assert found.scores["loss"] == pytest.approx(by_hand(two, windows, 2), rel=1e-5)
    assert (
        found.protocol.targets == len(found.guesses) == 14 * len(windows)
        and first_target((3, BOS)) == 2
    )


def test_bos_is_refused_where_the_tokenizer_has_none(text):
    with pytest.raises(
        PlainError,
        match=r"no beginning-of-sequence token \(BOS\); set "
        r"Beginning-of-sequence token \(task\.bos\) to auto or never",
    ):
        wrapped = tokenizer("llama")
        wrapped.bos_token = None
        window_prefix(wrapped, "always")


def test_calibration_windows_follow_the_task(gemma, text):
    calibration = Calibration(text=text, samples=3, context=16)

    def first_windows(bos):
        task = LanguageModeling(text="bundled:docs", bos=bos)
        return torch.cat(
            [batch["input_ids"] for batch in calibration_batches(calibration, task, gemma)]
        )

    with_bos, without = first_windows("auto"), first_windows("never")
    assert with_bos.shape == without.shape == (3, 16)
    assert with_bos[:, 0].tolist() == [BOS] * 3 and torch.equal(
        with_bos[:, 1:].flatten()[:15], without.flatten()[:15]
    )


def test_questions_about_mistakes_are_the_tokens_that_are_scored(gemma, text):
    task = LanguageModeling(text=text, context=16, tokens=400)
    paper, found = (
        evaluation_set(task, gemma),
        evaluate(task, load_pretrained(gemma).float(), gemma),
    )
    assert len(paper.right) == len(found.guesses)
    assert "<s>" not in paper.question(3)["text"] and WORDS.startswith(
        paper.question(3)["text"].removeprefix("…")
    )


def test_the_recipe_of_a_damaged_folder_is_read_as_it_was_stored(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: {kind: language-modeling}\nsteps: []")
    assert recipe_in(tmp_path).task.bos == "never"
