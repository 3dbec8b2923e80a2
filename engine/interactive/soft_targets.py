"""Teacher predictions for one example, softened by a temperature."""

import pandas as pd
import torch

from engine.evaluation.classification import checked_length, class_targets
from engine.evaluation.data.examples import load_examples, load_text
from engine.evaluation.data.tokens import (
    as_one_text,
    model_inputs,
    text_tokens,
    token_windows,
    window_prefix,
)
from engine.evaluation.evaluation import check_task_kind
from engine.evaluation.masked import NOT_MASKED, masked_text
from engine.evaluation.measured import evaluation_mode, inputs_on_device
from engine.evaluation.progress import ignore_progress
from engine.interactive.model_cache import CACHE
from engine.interactive.registry import answer
from engine.models.loaded_model import LoadedModel
from engine.models.loading import ModelSource, config_of, resolve_model, tokenizer_of
from engine.queries import SoftTargetsQuery
from engine.recipe import Recipe
from engine.recipe.tasks import ImageClassification, LanguageModeling, MaskedLanguageModeling
from engine.results.schema.query_results import SoftTargetRow, SoftTargets
from engine.results.schema.tables import table
from engine.training.datasets import encoded_inputs

MAX_ANSWERS = 12  # answers that are shown
TEXT = 400  # characters of an example that are shown


@answer.register
def answer_soft_targets(query: SoftTargetsQuery) -> SoftTargets:
    """The most likely answers to an evaluation example; for a text, the next token of one of its
    windows.
    """
    recipe = query.recipe
    check_task_kind(recipe.task, resolve_model(recipe.model))
    model = CACHE.model(recipe.model)
    arguments = recipe, model.folder, model.opened, query.example, query.temperature
    match recipe.task:
        case MaskedLanguageModeling():
            return masked_token(*arguments)
        case LanguageModeling():
            return next_tokens(*arguments)
    return class_targets_of_example(*arguments)


def next_tokens(
    recipe: Recipe, folder: ModelSource, loaded: LoadedModel, example: int, temperature: float
) -> SoftTargets:
    task, tokenizer = recipe.task, tokenizer_of(folder)
    text = load_text(task.text, task.text_column, task.split)
    prefix = window_prefix(tokenizer, task.bos)
    stream = text_tokens(text, tokenizer, min(task.tokens, (example + 1) * task.context))
    windows = token_windows(stream, task.context, text.name, prefix)
    row = windows[min(example, len(windows) - 1)]
    logits = single_example_logits(loaded, model_inputs([row[:-1].tolist()]))[-1]
    named = {
        token: repr(tokenizer.decode([token]))
        for token in logits.topk(min(MAX_ANSWERS, len(logits))).indices.tolist()
    }
    return SoftTargets(
        soft_target_table(logits, named, int(row[-1]), temperature),
        f"… {tokenizer.decode(row[len(prefix) : -1])[-TEXT:]}",
    )


def masked_token(
    recipe: Recipe, folder: ModelSource, loaded: LoadedModel, example: int, temperature: float
) -> SoftTargets:
    """Question about the first masked token of a window."""
    tokenizer = tokenizer_of(folder)
    _, inputs, labels = masked_text(recipe.task, tokenizer, config_of(folder), ignore_progress)
    row, label_row = (examples[min(example, len(inputs) - 1)] for examples in (inputs, labels))
    position = int((label_row != NOT_MASKED).nonzero()[0])
    logits = single_example_logits(loaded, model_inputs([row.tolist()]))[position]
    named = {
        token: repr(tokenizer.decode([token]))
        for token in logits.topk(min(MAX_ANSWERS, len(logits))).indices.tolist()
    }
    before, after = (tokenizer.decode(part) for part in (row[:position], row[position + 1 :]))
    return SoftTargets(
        soft_target_table(logits, named, int(label_row[position]), temperature),
        f"… {before[-TEXT // 2 :]}▁{after[: TEXT // 2]} …",
    )


def class_targets_of_example(
    recipe: Recipe, folder: ModelSource, loaded: LoadedModel, example: int, temperature: float
) -> SoftTargets:
    examples, config = load_examples(recipe.task), config_of(folder)
    number = min(example, len(examples.inputs) - 1)
    if not isinstance(recipe.task, ImageClassification):
        checked_length(recipe.task.length, config, tokenizer_of(folder))
    single = type(examples)(
        examples.inputs[number : number + 1],
        examples.labels[number : number + 1],
        examples.names,
        examples.name,
        "",
    )
    logits = single_example_logits(loaded, encoded_inputs(recipe.task, single, folder))
    right, most_likely = (
        int(class_targets(examples, config)[number]),
        logits.topk(min(MAX_ANSWERS, len(logits))).indices.tolist(),
    )
    example_input = examples.inputs[number]
    description = (
        as_one_text(example_input)[:TEXT]
        if isinstance(example_input, str | tuple)
        else f"image {number + 1}, a {config.id2label[right]}"
    )
    return SoftTargets(
        soft_target_table(
            logits,
            {label: str(config.id2label[label]) for label in most_likely},
            right,
            temperature,
        ),
        description,
    )


def single_example_logits(loaded: LoadedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of one example: (classes,), or (tokens, vocabulary) for a text."""
    with evaluation_mode(loaded.model):
        return (
            loaded.model(**inputs_on_device(inputs, loaded.model, loaded.device)).logits[0].float()
        )


def soft_target_table(
    logits: torch.Tensor, named: dict[int, str], right: int, temperature: float
) -> pd.DataFrame:
    plain, softened = logits.softmax(-1), (logits / temperature).softmax(-1)
    rows = (
        SoftTargetRow(
            name,
            plain[class_number].item(),
            softened[class_number].item(),
            temperature,
            class_number == right,
        )
        for class_number, name in named.items()
    )
    return table(rows, SoftTargetRow)
