"""GPTQ, column by column: the method's own codes and errors, and what the columns held in between."""

from dataclasses import replace

import pandas as pd
import torch

from engine.catalog.calibrated import GPTQ
from engine.results.lessons import Lesson, ReplayRow
from engine.results.tables import NAN
from engine.work.answers import Look
from engine.work.lessons.pictures import frame, no_levels, part_of, picture
from engine.work.methods import compress
from engine.work.methods.quantization.gptq import Columns, prepared
from engine.work.methods.quantization.grid import unsigned

ROWS, PLACES = 12, 32  # rows of the weight, and columns in the order of rounding


@picture.register
def _(asked: GPTQ, look: Look) -> Lesson:
    """The first columns to be rounded, in the midst of all others. Rows do not know of one another: a few are as good as all."""
    few = replace(look, weight=look.weight[:ROWS].contiguous())
    out, in_ = look.weight.shape
    part = f"{part_of('output rows', len(few.weight), out)}; the first {min(PLACES, in_)} of {in_} columns to be rounded"
    return Lesson(ReplayRow, replayed(asked, few), no_levels(), part)


def replayed(how: GPTQ, look: Look) -> pd.DataFrame:
    """ReplayRow of every step, row and column shown, in this order."""
    columns, order = prepared(how, look.weight, look.seen)
    before = columns.left.clone()
    columns.round_between(0, len(order))
    original, rounded = look.weight.T[order], compress(how.rounding(), look.weight).dense().T[order]
    gram = look.seen.gram[order][:, order]
    shown = min(PLACES, len(order))
    return pd.concat([step_table(how, columns, columns.held_after(step, before), original, rounded, gram, order, step) for step in range(shown + 1)])


def step_table(
    how: GPTQ, columns: Columns, held: torch.Tensor, original: torch.Tensor, rounded: torch.Tensor, gram: torch.Tensor, order: torch.Tensor, step: int
) -> pd.DataFrame:
    """``held``, ``original`` and ``rounded``: (in_, out), in the order of rounding."""
    done = torch.arange(len(order)) < step
    plain = torch.where(done[:, None], rounded, original)
    codes = unsigned(columns.codes.clone(), how.rounding()).float().masked_fill(~done[:, None], NAN)
    places = torch.arange(min(PLACES, len(order)))
    at = torch.meshgrid(torch.arange(original.shape[1]), places, indexing="ij")[::-1]  # row by row
    return frame(
        ReplayRow, step=step, place=at[0], row=at[1], column=order[at[0]], original=original[at], gptq=held[at], plain=plain[at], code=codes[at],
        gptq_error=share_lost(held - original, original, gram), plain_error=share_lost(plain - original, original, gram),
    )  # fmt: skip


def share_lost(missed: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> float:
    """|X D| / |X W| over the calibration data.  both (in_, out)"""
    lost, whole = (((gram @ each) * each).sum().clamp_min(0).item() for each in (missed, weight))
    return (lost / whole) ** 0.5 if whole else 0.0
