"""What a teacher says to one example, softened by a temperature."""

import torch

from engine.catalog.tasks import ImageClassification, LanguageModeling
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.answers import SoftTargetRow, SoftTargets
from engine.results.tables import table
from engine.work.answers import at_hand
from engine.work.models import Folder, config_of, resolve, tokenizer_of
from engine.work.opened import Opened
from engine.work.quiet import ready
from engine.work.tasks.classification import fitting_length, targets_of
from engine.work.tasks.data import examples_of, text_of
from engine.work.tasks.measured import judging, placed
from engine.work.tasks.tokens import model_inputs, stream_of, windows_of
from engine.work.training.lessons import prepared

MOST = 12  # answers that are shown
TEXT = 400  # characters of an example that are shown


def soft_targets(model: str, measured: dict, example: int, temperature: float) -> SoftTargets:
    """The likeliest answers to an example that quality is measured on; of a text, to what comes after one of its windows."""
    ready()
    asked, folder = Recipe.of({"model": model, **measured}), resolve(model)
    if folder.kind != asked.task.kind:
        raise PlainError(f"{folder} is a {folder.kind} model, but the task is {asked.task.kind}; set task.kind to {folder.kind}.")
    _, at = at_hand(model)
    if isinstance(asked.task, LanguageModeling):
        return next_tokens(asked, folder, at, example, temperature)
    return classes(asked, folder, at, example, temperature)


def next_tokens(asked: Recipe, folder: Folder, at: Opened, example: int, temperature: float) -> SoftTargets:
    task, tokenizer = asked.task, tokenizer_of(folder)
    text = text_of(task.text, task.text_column, task.split)
    windows = windows_of(stream_of(text, tokenizer, min(task.tokens, (example + 1) * task.context)), task.context, text.name)
    row = windows[min(example, len(windows) - 1)]
    logits = answered(at, model_inputs([row[:-1].tolist()]))[-1]
    named = {token: repr(tokenizer.decode([token])) for token in logits.topk(min(MOST, len(logits))).indices.tolist()}
    return SoftTargets(rows_of(logits, named, int(row[-1]), temperature), f"… {tokenizer.decode(row[:-1])[-TEXT:]}")


def classes(asked: Recipe, folder: Folder, at: Opened, example: int, temperature: float) -> SoftTargets:
    examples, config = examples_of(asked.task), config_of(folder)
    number = min(example, len(examples.inputs) - 1)
    if not isinstance(asked.task, ImageClassification):
        fitting_length(asked.task.length, config, tokenizer_of(folder))
    one = type(examples)(examples.inputs[number : number + 1], examples.labels[number : number + 1], examples.names, examples.name, "")
    logits = answered(at, prepared(asked.task, one, folder))
    right, likeliest = int(targets_of(examples, config)[number]), logits.topk(min(MOST, len(logits))).indices.tolist()
    what = examples.inputs[number]
    said = f"{what[:TEXT]}" if isinstance(what, str) else f"picture {number + 1}, a {config.id2label[right]}"
    return SoftTargets(rows_of(logits, {label: str(config.id2label[label]) for label in likeliest}, right, temperature), said)


def answered(at: Opened, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of one example: (classes,), or of every place of a text (tokens, vocabulary)"""
    with judging(at.model):
        return at.model(**placed(inputs, at.model, at.device)).logits[0].float()


def rows_of(logits: torch.Tensor, named: dict[int, str], right: int, temperature: float):
    plain, softened = logits.softmax(-1), (logits / temperature).softmax(-1)
    rows = (SoftTargetRow(name, plain[each].item(), softened[each].item(), temperature, each == right) for each, name in named.items())
    return table(rows, SoftTargetRow)
