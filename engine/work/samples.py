"""The same beginning continued by both models: what the numbers sound like."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import singledispatch

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from engine.catalog.tasks import LanguageModeling
from engine.catalog.technique import Frozen
from engine.results.tables import SampleRow
from engine.work.models import Folder, tokenizer_of
from engine.work.stored.modules import unpacked_once

PROMPTS = (
    "Parameters\n----------\naxis : int, optional\n   ",
    "Return the number of",
    "Compute the",
)
NEW_TOKENS = 40
SMALL = 100_000_000  # bytes of a model: a larger one is not held unpacked and unpacks for seconds before each token, so it writes less


@singledispatch
def sample_rows(task: Frozen, folder: Folder, original: nn.Module, compressed: nn.Module) -> list[SampleRow]:
    """Classifiers say nothing that could be read."""
    return []


@sample_rows.register
def _(task: LanguageModeling, folder: Folder, original: nn.Module, compressed: nn.Module) -> list[SampleRow]:
    tokenizer, small = tokenizer_of(folder), folder.size_bytes < SMALL
    prompts, tokens = (PROMPTS, NEW_TOKENS) if small else (PROMPTS[:1], NEW_TOKENS // 4)
    with ExitStack() as held:
        if small:
            for each in (one_thread(), unpacked_once(original), unpacked_once(compressed)):
                held.enter_context(each)
        return [SampleRow(prompt, *(continued(model, tokenizer, prompt, tokens) for model in (original, compressed))) for prompt in prompts]


@torch.inference_mode()
def continued(model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int) -> str:
    """The likeliest next tokens, one after another (greedy)."""
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids.to(next(model.parameters()).device)
    if not ids.shape[1]:
        return ""
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return tokenizer.decode(made[0, ids.shape[1] :])


@contextmanager
def one_thread() -> Iterator[None]:
    """One token at a time is too little work to share: on a busy machine the threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
