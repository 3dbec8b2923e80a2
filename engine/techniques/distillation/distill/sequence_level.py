"""Output of a black-box teacher for its student: continuations of a text, or the predicted classes
(sequence-level distillation, Kim & Rush 2016, arXiv:1606.07947).
"""

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from engine.errors import PlainError
from engine.events import ProgressEvent
from engine.models.loading import config_of, tokenizer_of
from engine.models.packed_modules import unpacked_once
from engine.results.schema.tables import WrittenRow
from engine.step.run_context import Bench, Rows
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.teacher_logits import AT_ONCE, asked
from engine.training import Exercises, Lessons
from engine.training.loop import answers, at_rest
from engine.training.losses import UNLABELLED

LEAST = 8  # tokens of an answer: fewer would say next to nothing
TEMPLATES = {  # pieces of a prompt: a text's beginning, others with the way they go on, and words
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


def answered(
    how: Distill,
    bench: Bench,
    teacher: nn.Module,
    lessons: Lessons,
    device: torch.device,
    rows: Rows,
) -> Lessons:
    """The teacher's choices in the place of labels, also of examples that had none; as many as a
    language model would write can be read.
    """
    with at_rest(teacher), unpacked_once(teacher):
        chosen = asked(bench, lessons.train, lambda part: answers(teacher, part, device).argmax(-1))
    names = config_of(bench.folder).id2label
    shown = readable(lessons.train.some(slice(0, how.written)), bench)
    rows.written.extend(
        WrittenRow(text, str(names.get(choice, choice)))
        for text, choice in zip(shown, chosen.tolist(), strict=False)
    )
    return Lessons(Exercises(lessons.train.inputs, chosen), lessons.held_out)


def readable(examples: Exercises, bench: Bench) -> list[str]:
    """Texts as they reach the model; an image's number among those learned from."""
    if "input_ids" not in examples.inputs:
        return [f"image {number}" for number in range(1, len(examples) + 1)]
    tokenizer, mask = tokenizer_of(bench.folder), examples.inputs["attention_mask"].bool()
    return [
        tokenizer.decode(row[real], skip_special_tokens=True)
        for row, real in zip(examples.inputs["input_ids"], mask, strict=True)
    ]


def written(
    how: Distill,
    bench: Bench,
    teacher: nn.Module,
    lessons: Lessons,
    device: torch.device,
    rows: Rows,
    unshared: int | None = None,
) -> Lessons:
    """Text sampled from the teacher for prompts from the training text, the student's only training
    data; prompts and templates are not trained on.

    ``unshared``: first token id that the teacher must not generate. Raises PlainError if a window
    has no room for an answer.
    """
    windows, tokenizer = lessons.train.inputs["input_ids"], tokenizer_of(bench.folder)
    asking = prompts(how, windows, tokenizer)
    length, count, made = asking.shape[1], len(asking), []
    with (
        at_rest(teacher),
        unpacked_once(teacher),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        torch.manual_seed(bench.recipe.seed)
        for done, begun in enumerate(asking.split(AT_ONCE)):
            bench.progress(ProgressEvent("generating-text", done * AT_ONCE, count))
            made.append(continued(teacher, begun.to(device), windows.shape[1], unshared).cpu())
    texts = torch.cat(made)
    rows.written.extend(
        WrittenRow(tokenizer.decode(row[:length]), tokenizer.decode(row[length:])) for row in texts
    )
    return Lessons(Exercises({"input_ids": texts}, only_written(texts, length)), lessons.held_out)


def only_written(texts: torch.Tensor, prompt: int) -> torch.Tensor:
    """Targets: the teacher's tokens; those of the prompt before them count for nothing.  (texts,
    tokens)
    """
    targets = texts.clone()
    targets[:, :prompt] = UNLABELLED
    return targets


def prompts(
    how: Distill, windows: torch.Tensor, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """Beginnings of windows, in the template of what is asked for.  (windows, tokens) -> (texts,
    tokens of a prompt)
    """
    room, count = windows.shape[1], min(how.written, len(windows))
    begun = windows[:count, : how.prompt]
    # texts with the way they really go on
    examples = [windows.roll(-shift, 0)[:count, : 2 * how.prompt] for shift in (1, 2)]
    parts = {"text": begun, "one": examples[0], "other": examples[1]}
    pieces = [parts.get(piece, piece) for piece in TEMPLATES[how.asks]]
    asking = torch.cat(
        [
            piece if torch.is_tensor(piece) else words(piece, tokenizer).expand(count, -1)
            for piece in pieces
        ],
        1,
    )
    if (left := max(0, room - asking.shape[1])) < LEAST:
        raise PlainError(
            f"Asking for {how.asks} with {how.prompt} tokens of text takes {asking.shape[1]} "
            f"tokens of a window of {room}, which leaves {left} for "
            f"an answer, and it takes {LEAST} at least; set prompt lower, or calibration.context "
            "higher."
        )
    return asking


def words(text: str, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """(1, tokens)"""
    return torch.tensor([tokenizer(text, add_special_tokens=False).input_ids], dtype=torch.long)


def continued(
    teacher: nn.Module, begun: torch.Tensor, length: int, unshared: int | None = None
) -> torch.Tensor:
    """Sample continuations with token ids below ``unshared``; a text may end and another begin.
    (texts, prompt) -> (texts, length)
    """
    vocabulary = teacher.config.get_text_config().vocab_size
    suppressed = (
        {"suppress_tokens": list(range(unshared, vocabulary))}
        if unshared is not None and unshared < vocabulary
        else {}
    )
    ends = suppressed | {
        "min_new_tokens": length - begun.shape[1],
        "max_new_tokens": length - begun.shape[1],
    }
    return teacher.generate(
        begun,
        attention_mask=torch.ones_like(begun),
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        eos_token_id=None,
        **ends,
    )
