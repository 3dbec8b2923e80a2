"""The same beginning continued by both models: what the numbers sound like."""

import json
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from engine.catalog.tasks import LanguageModeling
from engine.recipe import Recipe
from engine.results.tables import SampleRow
from engine.work.models import Folder, tokenizer_of
from engine.work.stored.modules import unpacked_once
from engine.work.tasks.baseline import place_key
from engine.work.tasks.cache import kept_in, kept_or_made
from engine.work.threads import one_thread

PROMPTS = (
    "Parameters\n----------\naxis : int, optional\n   ",
    "Return the number of",
    "Compute the",
)
NEW_TOKENS = 40
SMALL = 100_000_000  # bytes of a model: a larger one is not held unpacked and unpacks for seconds before each token, so it writes less


def sample_rows(recipe: Recipe, folder: Folder, original: nn.Module, compressed: nn.Module) -> list[SampleRow]:
    """Of a language model; classifiers say nothing that could be read. What the original says is kept for its next runs."""
    if not isinstance(recipe.task, LanguageModeling):
        return []
    small = folder.size_bytes < SMALL
    prompts, tokens = (PROMPTS, NEW_TOKENS) if small else (PROMPTS[:1], NEW_TOKENS // 4)

    def said(model: nn.Module) -> list[str]:
        tokenizer = tokenizer_of(folder)
        with ExitStack() as held:
            if small:
                held.enter_context(one_thread())
                held.enter_context(unpacked_once(model))
            return [continued(model, tokenizer, prompt, tokens) for prompt in prompts]

    path = kept_in() / f"continued-{place_key(recipe, folder, *prompts, str(tokens))}.json"
    before = kept_or_made(path, lambda at: json.loads(at.read_text("utf8")), lambda: said(original), write)
    return [SampleRow(*row) for row in zip(prompts, before, said(compressed), strict=True)]


def write(path: Path, texts: list[str]) -> None:
    path.write_text(json.dumps(texts), "utf8")


@torch.inference_mode()
def continued(model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int) -> str:
    """The likeliest next tokens, one after another (greedy)."""
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids.to(next(model.parameters()).device)
    if not ids.shape[1]:
        return ""
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return tokenizer.decode(made[0, ids.shape[1] :])
