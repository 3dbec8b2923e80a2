"""Every example put to a fixed teacher once, before the course: what it says stays the same however often the example comes."""

from collections.abc import Callable
from dataclasses import replace

import torch

from engine.work.bench import Bench
from engine.work.training import Exercises

AT_ONCE = 32  # examples or continuations


def asked(bench: Bench, examples: Exercises, answer: Callable[[Exercises], torch.Tensor]) -> torch.Tensor:
    """What ``answer`` gives for each, in their order. Texts of one length go together, so that hardly anything is padding.  (examples, ...)"""
    order, given = examples.by_length(), []
    for done, rows in enumerate(order.split(AT_ONCE)):
        bench.progress("Asking the teacher", done * AT_ONCE, len(examples))
        given.append(answer(examples.some(rows)).cpu())
    return torch.cat(given)[order.argsort()]


def with_answers(bench: Bench, examples: Exercises, answer: Callable[[Exercises], torch.Tensor]) -> Exercises:
    return replace(examples, said=asked(bench, examples, answer))
