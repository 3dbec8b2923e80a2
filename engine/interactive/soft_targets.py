"""A teacher's predictions for one example, softened by a temperature."""

import torch

from engine.evaluation.classification import fitting_length, targets_of
from engine.evaluation.data.examples import examples_of, text_of
from engine.evaluation.data.tokens import (
    as_one_text,
    model_inputs,
    stream_of,
    window_prefix,
    windows_of,
)
from engine.evaluation.evaluation import refuse_other_kind
from engine.evaluation.masked import NOT_MASKED, masked_text
from engine.evaluation.measured import judging, placed
from engine.evaluation.progress import silent
from engine.interactive.model_cache import CACHE
from engine.interactive.registry import answer
from engine.models.loaded_model import Opened
from engine.models.loading import Folder, config_of, resolve, tokenizer_of
from engine.queries import SoftTargetsQuery
from engine.recipe import Recipe
from engine.recipe.tasks import ImageClassification, LanguageModeling, MaskedLanguageModeling
from engine.results.schema.query_results import SoftTargetRow, SoftTargets
from engine.results.schema.tables import table
from engine.training.datasets import prepared

MOST = 12  # answers that are shown
TEXT = 400  # characters of an example that are shown


@answer.register
def answer_soft_targets(query: SoftTargetsQuery) -> SoftTargets:
    """The likeliest answers to an example that quality is measured on; of a text, to what comes
    after one of its windows.
    """
    recipe = query.recipe
    refuse_other_kind(recipe.task, resolve(recipe.model))
    model = CACHE.model(recipe.model)
    arguments = recipe, model.folder, model.opened, query.example, query.temperature
    match recipe.task:
        case MaskedLanguageModeling():
            return masked_token(*arguments)
        case LanguageModeling():
            return next_tokens(*arguments)
    return classes(*arguments)


def next_tokens(
    asked: Recipe, folder: Folder, at: Opened, example: int, temperature: float
) -> SoftTargets:
    task, tokenizer = asked.task, tokenizer_of(folder)
    text = text_of(task.text, task.text_column, task.split)
    prefix = window_prefix(tokenizer, task.bos)
    stream = stream_of(text, tokenizer, min(task.tokens, (example + 1) * task.context))
    windows = windows_of(stream, task.context, text.name, prefix)
    row = windows[min(example, len(windows) - 1)]
    logits = answered(at, model_inputs([row[:-1].tolist()]))[-1]
    named = {
        token: repr(tokenizer.decode([token]))
        for token in logits.topk(min(MOST, len(logits))).indices.tolist()
    }
    return SoftTargets(
        rows_of(logits, named, int(row[-1]), temperature),
        f"… {tokenizer.decode(row[len(prefix) : -1])[-TEXT:]}",
    )


def masked_token(
    asked: Recipe, folder: Folder, at: Opened, example: int, temperature: float
) -> SoftTargets:
    """Question about the first masked token of a window."""
    tokenizer = tokenizer_of(folder)
    _, inputs, labels = masked_text(asked.task, tokenizer, config_of(folder), silent)
    row, due = (each[min(example, len(inputs) - 1)] for each in (inputs, labels))
    place = int((due != NOT_MASKED).nonzero()[0])
    logits = answered(at, model_inputs([row.tolist()]))[place]
    named = {
        token: repr(tokenizer.decode([token]))
        for token in logits.topk(min(MOST, len(logits))).indices.tolist()
    }
    before, after = (tokenizer.decode(part) for part in (row[:place], row[place + 1 :]))
    return SoftTargets(
        rows_of(logits, named, int(due[place]), temperature),
        f"… {before[-TEXT // 2 :]}▁{after[: TEXT // 2]} …",
    )


def classes(
    asked: Recipe, folder: Folder, at: Opened, example: int, temperature: float
) -> SoftTargets:
    examples, config = examples_of(asked.task), config_of(folder)
    number = min(example, len(examples.inputs) - 1)
    if not isinstance(asked.task, ImageClassification):
        fitting_length(asked.task.length, config, tokenizer_of(folder))
    one = type(examples)(
        examples.inputs[number : number + 1],
        examples.labels[number : number + 1],
        examples.names,
        examples.name,
        "",
    )
    logits = answered(at, prepared(asked.task, one, folder))
    right, likeliest = (
        int(targets_of(examples, config)[number]),
        logits.topk(min(MOST, len(logits))).indices.tolist(),
    )
    what = examples.inputs[number]
    said = (
        as_one_text(what)[:TEXT]
        if isinstance(what, str | tuple)
        else f"image {number + 1}, a {config.id2label[right]}"
    )
    return SoftTargets(
        rows_of(
            logits, {label: str(config.id2label[label]) for label in likeliest}, right, temperature
        ),
        said,
    )


def answered(at: Opened, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of one example: (classes,), or of every place of a text (tokens, vocabulary)"""
    with judging(at.model):
        return at.model(**placed(inputs, at.model, at.device)).logits[0].float()


def rows_of(logits: torch.Tensor, named: dict[int, str], right: int, temperature: float):
    plain, softened = logits.softmax(-1), (logits / temperature).softmax(-1)
    rows = (
        SoftTargetRow(name, plain[each].item(), softened[each].item(), temperature, each == right)
        for each, name in named.items()
    )
    return table(rows, SoftTargetRow)
