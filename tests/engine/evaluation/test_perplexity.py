import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import Cancelled, PlainError
from engine.evaluation import evaluate, perplexity
from engine.evaluation.data.examples import load_text
from engine.evaluation.data.tokens import leading_tokens, text_tokens, token_windows
from engine.evaluation.progress import cancellable_report, ignore_progress, never_cancelled
from engine.events import ProgressEvent
from engine.models.loading import load_pretrained, resolve_model
from engine.recipe.tasks import LanguageModeling
from tests.tiny import SENTENCES, VOCABULARY, tiny, tokenizer

TOKENIZER = tokenizer("llama")
WORDS = " ".join(SENTENCES * 40)


class Answers(nn.Module):
    """Gives ``logits_of(input_ids)``, and notes what it was asked."""

    def __init__(self, logits_of, **config):
        super().__init__()
        self.logits_of, self.config, self.asked = logits_of, SimpleNamespace(**config), []

    def forward(self, input_ids):
        self.asked.append(input_ids.clone())
        return SimpleNamespace(logits=self.logits_of(input_ids))


def uniform(tokens):
    return torch.zeros(*tokens.shape, VOCABULARY)


@pytest.fixture
def task(tmp_path):
    (tmp_path / "a.txt").write_text(WORDS)
    return LanguageModeling(text=str(tmp_path / "a.txt"), context=16, tokens=1000)


def measure_perplexity(task, model, told=ignore_progress):
    return perplexity.perplexity(task, model, TOKENIZER, "cpu", told)


def test_uniform_logits_give_perplexity_of_the_vocabulary_size(task):
    assert measure_perplexity(task, Answers(uniform)).scores["perplexity"] == pytest.approx(
        VOCABULARY, rel=1e-5
    )


def test_a_model_that_knows_the_next_token_has_perplexity_one(task):
    def knowing(tokens):
        return 100 * torch.nn.functional.one_hot(tokens.roll(-1, 1), VOCABULARY).float()

    result = measure_perplexity(task, Answers(knowing))
    assert result.scores["perplexity"] == pytest.approx(1)
    targets = token_windows(text_tokens(load_text(task.text), TOKENIZER, 1000), 16, "")[:, 1:]
    assert np.array_equal(result.guesses, targets.flatten())


def test_windows_do_not_overlap_and_are_read_in_order(task):
    model = Answers(uniform)
    measure_perplexity(task, model)
    stream = leading_tokens(load_text(task.text), TOKENIZER, 1000)
    assert np.array_equal(torch.cat(model.asked).flatten(), stream[: 1000 // 16 * 16])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
def test_a_slow_computation_by_hand_gives_the_same(task, tmp_path, architecture):
    folder = resolve_model(str(tiny(architecture, tmp_path / "model")))
    model = load_pretrained(folder)
    losses = []
    for window in token_windows(leading_tokens(load_text(task.text), TOKENIZER, 1000), 16, ""):
        chances = model(input_ids=window[None]).logits[0].double().softmax(-1)
        losses += [-math.log(chances[place, window[place + 1]]) for place in range(15)]
    result = evaluate(task, model, folder)
    assert result.scores["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.scores["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert (
        (result.protocol.windows, result.protocol.targets)
        == (62, 62 * 15)
        == (62, len(result.guesses))
    )


def test_the_size_of_a_batch_changes_nothing(task, tmp_path, monkeypatch):
    task = task.model_copy(update={"tokens": 200})
    model = load_pretrained(resolve_model(str(tiny("llama", tmp_path / "model"))))
    together = measure_perplexity(task, model)
    monkeypatch.setattr(perplexity, "CPU_TOKENS", 1)
    monkeypatch.setattr(perplexity, "TOKENS_PER_LOSS", 7)
    alone = measure_perplexity(task, model)
    assert alone.scores["loss"] == pytest.approx(together.scores["loss"], rel=1e-6)
    assert np.array_equal(alone.guesses, together.guesses)


def test_logits_of_a_batch_stay_under_their_limit(task, monkeypatch):
    monkeypatch.setattr(perplexity, "LOGITS_BYTES", 3 * 16 * VOCABULARY * 4)
    monkeypatch.setattr(perplexity, "CPU_TOKENS", 10**6)
    model = Answers(uniform)
    measure_perplexity(task, model)
    assert max(map(len, model.asked)) == 3


def test_dropout_is_off_and_the_mode_is_given_back(task):
    model = Answers(lambda tokens: uniform(tokens) + model.training).train()
    measure_perplexity(task, model)
    assert model.training


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(math.nan, "not numbers"), (-math.inf, "not numbers"), (None, "infinitely wrong")],
)
def test_predictions_that_are_no_numbers_are_refused(task, wrong, words):
    def broken_predictions(tokens):
        if wrong is not None:
            return uniform(tokens) + wrong
        return torch.where(torch.arange(VOCABULARY) == 0, 0.0, -math.inf).expand(*tokens.shape, -1)

    with pytest.raises(PlainError, match=words):
        measure_perplexity(task, Answers(broken_predictions))


def test_a_loss_beyond_any_perplexity_is_refused(task):
    with pytest.raises(PlainError, match="too much for a perplexity"):
        measure_perplexity(
            task, Answers(lambda tokens: uniform(tokens) + 1e6 * (torch.arange(VOCABULARY) == 0))
        )


def test_a_text_shorter_than_a_window_is_refused_with_the_numbers(tmp_path):
    (tmp_path / "a.txt").write_text("word")
    with pytest.raises(PlainError, match=r"a.txt gives \d tokens, fewer than one window of 256"):
        measure_perplexity(LanguageModeling(text=str(tmp_path / "a.txt")), Answers(uniform))


@pytest.mark.parametrize("limit", ["max_position_embeddings", "n_positions"])
def test_a_window_one_longer_than_the_positions_is_refused(task, limit):
    measure_perplexity(task, Answers(uniform, **{limit: 16}))
    with pytest.raises(
        PlainError,
        match=r"16 tokens exceeds the 15 that this model reads; set Context "
        r"\(task\.context\) to at most 15",
    ):
        measure_perplexity(task, Answers(uniform, **{limit: 15}))


def test_a_tokenizer_of_another_model_is_refused(task):
    with pytest.raises(
        PlainError, match="the model knows 100; use the tokenizer it was trained with"
    ):
        measure_perplexity(task, Answers(uniform, vocab_size=100))


def test_progress_ends_at_all_windows(task):
    told = []
    measure_perplexity(task, Answers(uniform), told.append)
    assert told[-1] == ProgressEvent("measuring-perplexity", 62, 62)


def test_a_cancelled_measurement_stops_between_batches(task, monkeypatch):
    monkeypatch.setattr(perplexity, "CPU_TOKENS", 1)
    model = Answers(uniform)
    with pytest.raises(Cancelled, match="while it was measuring perplexity"):
        measure_perplexity(
            task, model, cancellable_report(ignore_progress, lambda: len(model.asked) == 3)
        )
    assert len(model.asked) == 3
    assert not never_cancelled()
