"""What a teacher writes, for a student that sees nothing else: continuations of a text, or the classes it chooses (sequence-level distillation, Kim
& Rush 2016, arXiv:1606.07947).
"""

import torch
from torch import nn

from engine.catalog.distillation import Distill
from engine.results.tables import WrittenRow
from engine.work.bench import Bench, Rows
from engine.work.methods.training.asking import AT_ONCE, asked
from engine.work.models import tokenizer_of
from engine.work.stored.modules import unpacked_once
from engine.work.training import Exercises, Lessons
from engine.work.training.loop import answers, at_rest


def answered(bench: Bench, teacher: nn.Module, lessons: Lessons, device: torch.device) -> Lessons:
    """The teacher's choices in the place of labels, also of examples that had none."""
    with at_rest(teacher), unpacked_once(teacher):
        chosen = asked(bench, lessons.train, lambda part: answers(teacher, part, device).argmax(-1))
    return Lessons(Exercises(lessons.train.inputs, chosen), lessons.held_out)


def written(how: Distill, bench: Bench, teacher: nn.Module, lessons: Lessons, device: torch.device, rows: Rows) -> Lessons:
    """Beginnings of the training text as the teacher goes on from them, drawn by its probabilities; the student learns from nothing else."""
    windows = lessons.train.inputs["input_ids"]
    prompt, count = min(how.prompt, windows.shape[1] - 1), min(how.written, len(windows))
    made = []
    with at_rest(teacher), unpacked_once(teacher), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(bench.recipe.seed)
        for done, begun in enumerate(windows[:count, :prompt].split(AT_ONCE)):
            bench.progress("Writing with the teacher", done * AT_ONCE, count)
            made.append(continued(teacher, begun.to(device), windows.shape[1]).cpu())
    texts, tokenizer = torch.cat(made), tokenizer_of(bench.folder)
    rows.written.extend(WrittenRow(tokenizer.decode(row[:prompt]), tokenizer.decode(row[prompt:])) for row in texts)
    return Lessons(Exercises({"input_ids": texts}, texts), lessons.held_out)


def continued(teacher: nn.Module, begun: torch.Tensor, length: int) -> torch.Tensor:
    """(texts, prompt) -> (texts, length), whatever token comes: a text may end and another begin in it"""
    ends = {"min_new_tokens": length - begun.shape[1], "max_new_tokens": length - begun.shape[1]}
    return teacher.generate(begun, attention_mask=torch.ones_like(begun), do_sample=True, top_k=0, pad_token_id=0, eos_token_id=None, **ends)
