"""Output of a black-box teacher for its student: continuations of a text, or the predicted classes
(sequence-level distillation, Kim & Rush 2016, arXiv:1606.07947).
"""

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from engine.errors import PlainError, option_name
from engine.evaluation.measured import evaluation_mode
from engine.events import ProgressEvent
from engine.models.loading import config_of, tokenizer_of
from engine.models.packed_modules import keep_unpacked
from engine.recipe.tasks import Calibration
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.tables import WrittenRow
from engine.techniques.distillation.distill.teacher_logits import BATCH_SIZE, teacher_outputs
from engine.training import EncodedExamples, TrainingData
from engine.training.loop import batch_logits
from engine.training.losses import IGNORE_INDEX

MIN_ANSWER_TOKENS = 8  # minimum tokens of a continuation
# placeholders of a prompt template: start of a text, other texts with continuations, and words
TEMPLATES = {
    "continuations": ("text",),
    "instructions": (
        "Instruction:\nExplain what this is for, and how it is used.\n\n",
        "text",
        "\n\nAnswer:\n",
    ),
    "few-shot": ("one", "\n\n\n", "other", "\n\n\n", "text"),
    "reasoning": (
        "Question:\nWhat does this do?\n\n",
        "text",
        "\n\nAnswer:\nLet us think step by step. First, ",
    ),
}


def teacher_labeled_data(
    config: Distill,
    context: RunContext,
    teacher: nn.Module,
    training_data: TrainingData,
    device: torch.device,
    tables: TableBuilder,
) -> TrainingData:
    """Examples with the teacher's choices as labels, including unlabeled examples, and a table of
    as many as a language model would write.
    """
    with evaluation_mode(teacher, inference=False), keep_unpacked(teacher):
        chosen = teacher_outputs(
            context,
            training_data.train,
            lambda part: batch_logits(teacher, part, device).argmax(-1),
        )
    names = config_of(context.folder).id2label
    shown = readable_examples(training_data.train.subset(slice(0, config.written)), context)
    tables.written.extend(
        WrittenRow(text, str(names.get(choice, choice)))
        for text, choice in zip(shown, chosen.tolist(), strict=False)
    )
    return TrainingData(EncodedExamples(training_data.train.inputs, chosen), training_data.held_out)


def readable_examples(examples: EncodedExamples, context: RunContext) -> list[str]:
    """Texts as they are given to the model; for images, their numbers."""
    if "input_ids" not in examples.inputs:
        return [f"image {number}" for number in range(1, len(examples) + 1)]
    tokenizer, mask = tokenizer_of(context.folder), examples.inputs["attention_mask"].bool()
    return [
        tokenizer.decode(row[real], skip_special_tokens=True)
        for row, real in zip(examples.inputs["input_ids"], mask, strict=True)
    ]


def teacher_generated_data(
    config: Distill,
    context: RunContext,
    teacher: nn.Module,
    training_data: TrainingData,
    device: torch.device,
    tables: TableBuilder,
    first_unshared_token: int | None = None,
) -> TrainingData:
    """Text sampled from the teacher for prompts from the training text, the student's only training
    data; prompts and templates are not trained on. ``first_unshared_token``: first token id that
    the teacher must not generate.

    Raises PlainError if a window is too short for a continuation.
    """
    windows, tokenizer = training_data.train.inputs["input_ids"], tokenizer_of(context.folder)
    prompt_tokens = prompts(config, windows, tokenizer)
    length, count, generated = prompt_tokens.shape[1], len(prompt_tokens), []
    with (
        evaluation_mode(teacher, inference=False),
        keep_unpacked(teacher),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        torch.manual_seed(context.recipe.seed)
        for done, prompt_batch in enumerate(prompt_tokens.split(BATCH_SIZE)):
            context.progress(ProgressEvent("generating-text", done * BATCH_SIZE, count))
            generated.append(
                sample_continuations(
                    teacher, prompt_batch.to(device), windows.shape[1], first_unshared_token
                ).cpu()
            )
    texts = torch.cat(generated)
    tables.written.extend(
        WrittenRow(tokenizer.decode(row[:length]), tokenizer.decode(row[length:])) for row in texts
    )
    return TrainingData(
        EncodedExamples({"input_ids": texts}, continuation_targets(texts, length)),
        training_data.held_out,
    )


def continuation_targets(texts: torch.Tensor, prompt: int) -> torch.Tensor:
    """Targets: the teacher's tokens; those of the prompt are ignored. (texts, tokens)"""
    targets = texts.clone()
    targets[:, :prompt] = IGNORE_INDEX
    return targets


def prompts(
    config: Distill, windows: torch.Tensor, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """Prompts from the beginnings of windows, in the template. (windows, tokens) -> (texts, tokens
    of a prompt)
    """
    room, count = windows.shape[1], min(config.written, len(windows))
    beginnings = windows[:count, : config.prompt]
    # texts with their true continuations
    examples = [windows.roll(-shift, 0)[:count, : 2 * config.prompt] for shift in (1, 2)]
    parts = {"text": beginnings, "one": examples[0], "other": examples[1]}
    pieces = [parts.get(piece, piece) for piece in TEMPLATES[config.asks]]
    asking = torch.cat(
        [
            piece if torch.is_tensor(piece) else text_tokens(piece, tokenizer).expand(count, -1)
            for piece in pieces
        ],
        1,
    )
    if (left := max(0, room - asking.shape[1])) < MIN_ANSWER_TOKENS:
        raise PlainError(
            f"Asking for {config.asks} with {config.prompt} tokens of text takes {asking.shape[1]} "
            f"tokens of a window of {room}, which leaves {left} for an answer, and it takes "
            f"{MIN_ANSWER_TOKENS} at least; lower {option_name(config, 'prompt')}, or raise "
            f"{option_name(Calibration, 'context')}."
        )
    return asking


def text_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """(1, tokens)"""
    return torch.tensor([tokenizer(text, add_special_tokens=False).input_ids], dtype=torch.long)


def sample_continuations(
    teacher: nn.Module,
    prompt_tokens: torch.Tensor,
    length: int,
    first_unshared_token: int | None = None,
) -> torch.Tensor:
    """Sample continuations with token ids below ``first_unshared_token``; a text may end and
    another begin. (texts, prompt) -> (texts, length)
    """
    vocabulary = teacher.config.get_text_config().vocab_size
    suppress_options = (
        {"suppress_tokens": list(range(first_unshared_token, vocabulary))}
        if first_unshared_token is not None and first_unshared_token < vocabulary
        else {}
    )
    stop_options = suppress_options | {
        "min_new_tokens": length - prompt_tokens.shape[1],
        "max_new_tokens": length - prompt_tokens.shape[1],
    }
    return teacher.generate(
        prompt_tokens,
        attention_mask=torch.ones_like(prompt_tokens),
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        eos_token_id=None,
        **stop_options,
    )
