"""Every example put to a fixed teacher once, before the course: its outputs stay the same however
often the example comes.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from engine.events import ProgressEvent
from engine.step.run_context import Bench
from engine.training import Exercises

AT_ONCE = 32  # examples or continuations


def asked(
    bench: Bench, examples: Exercises, answer: Callable[[Exercises], torch.Tensor]
) -> torch.Tensor:
    """Outputs of ``answer`` for each example, (examples, ...), in order. Texts of equal length are
    batched together, so that there is little padding.
    """
    order, given = examples.by_length(), []
    for done, rows in enumerate(order.split(AT_ONCE)):
        bench.progress(ProgressEvent("asking-teacher", done * AT_ONCE, len(examples)))
        given.append(answer(examples.some(rows)).cpu())
    return torch.cat(given)[order.argsort()]


def with_answers(
    bench: Bench, examples: Exercises, answer: Callable[[Exercises], torch.Tensor]
) -> Exercises:
    return replace(examples, said=asked(bench, examples, answer))
