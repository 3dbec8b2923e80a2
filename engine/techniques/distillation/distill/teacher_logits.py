"""Outputs of a fixed teacher, computed once before training because they do not change."""

from collections.abc import Callable
from dataclasses import replace

import torch

from engine.events import ProgressEvent
from engine.step.run_context import RunContext
from engine.training import EncodedExamples

BATCH_SIZE = 32  # examples or continuations


def teacher_outputs(
    context: RunContext,
    examples: EncodedExamples,
    compute: Callable[[EncodedExamples], torch.Tensor],
) -> torch.Tensor:
    """Outputs of ``compute`` for each example, (examples, ...), in order. Texts of equal length are
    batched together, so that there is little padding.
    """
    order, given = examples.length_order(), []
    for done, rows in enumerate(order.split(BATCH_SIZE)):
        context.progress(ProgressEvent("asking-teacher", done * BATCH_SIZE, len(examples)))
        given.append(compute(examples.subset(rows)).cpu())
    return torch.cat(given)[order.argsort()]


def with_teacher_logits(
    context: RunContext,
    examples: EncodedExamples,
    compute: Callable[[EncodedExamples], torch.Tensor],
) -> EncodedExamples:
    return replace(examples, teacher_logits=teacher_outputs(context, examples, compute))
