"""Similarity of two models' hidden states, block by block: linear CKA (Kornblith et al. 2019,
arXiv:1905.00414).

Its terms are unbiased estimates from groups of inputs (Song et al. 2012; Nguyen et al. 2021,
arXiv:2010.15327): the biased form gives high similarity for random states that are wider than the
number of inputs. Only Gram matrices of a group are kept, independent of the models' widths.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import torch
from torch import nn

from engine.calibration.stream import active_hooks, block_sequences, first_output
from engine.evaluation import calibration_batches
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.measured import evaluation_mode, inputs_on_device
from engine.events import ProgressEvent
from engine.models.loaded_model import LoadedModel, device_and_dtype
from engine.models.packed_modules import keep_unpacked
from engine.recipe.tasks import ImageClassification
from engine.results.schema.tables import SimilarityRow
from engine.step.run_context import RunContext

EMBEDDINGS = "embeddings"  # input of the first block
GROUP_TOKENS, GROUP_IMAGES = 256, 64  # per group; an image's states are one long row
GROUPS = 8  # compared
MIN_ROWS = 4  # minimum rows for an estimate

States = dict[str, torch.Tensor]  # block -> (rows, width)


def centered_gram(states: torch.Tensor) -> torch.Tensor:
    """(rows, width) -> (rows, rows): Gram matrix of the centered states with a zero diagonal"""
    centred = states.float() - states.float().mean(0)
    return (centred @ centred.T).double().fill_diagonal_(0)


def hsic(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Hilbert-Schmidt independence criterion (HSIC, Song et al. 2012, equation 5) for each pair of
    the models' Gram matrices.

    (student blocks, rows, rows), (teacher blocks, rows, rows) -> (student blocks, teacher blocks)
    """
    n = student.shape[-1]
    student_sums, teacher_sums = (
        student.sum(-1),
        teacher.sum(-1),
    )  # (student blocks, rows), (teacher blocks, rows)
    product = student_sums.sum(-1)[:, None] * teacher_sums.sum(-1) / ((n - 1) * (n - 2))
    return (
        student.flatten(1) @ teacher.flatten(1).T
        + product
        - 2 / (n - 2) * student_sums @ teacher_sums.T
    ) / (n * (n - 3))


@dataclass
class CKAEstimate:
    """Sums over groups of inputs, from the states of student and teacher."""

    both: list[torch.Tensor] = field(default_factory=list)  # (student blocks, teacher blocks) each
    # (student blocks,), (teacher blocks,)
    alone: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def add(self, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> None:
        """Add one group of states, (rows, width) each; widths may differ."""
        student_grams, teacher_grams = (
            torch.stack([centered_gram(states) for states in group]) for group in (student, teacher)
        )
        self.both.append(hsic(student_grams, teacher_grams))
        self.alone.append(
            tuple(
                torch.stack([hsic(gram[None], gram[None])[0, 0] for gram in grams])
                for grams in (student_grams, teacher_grams)
            )
        )

    def similarity(self) -> torch.Tensor:
        """Linear CKA of every pair of blocks: 1 for states that are equal up to rotation and scale,
        about 0 for unrelated ones. (student blocks, teacher blocks)
        """
        student_norm, teacher_norm = (
            torch.stack(sums).sum(0).clamp_min(0) for sums in zip(*self.alone, strict=True)
        )
        return torch.stack(self.both).sum(0) / (
            student_norm[:, None] * teacher_norm
        ).sqrt().clamp_min(1e-30)


# --- of two models on calibration data ------------------------------------------------------------


def similarity_rows(
    context: RunContext, teacher: LoadedModel, student: LoadedModel
) -> list[SimilarityRow]:
    """Rows for all pairs of blocks; none if a model has no sequence of blocks or there are too few
    examples.
    """
    estimate, names = CKAEstimate(), ([], [])
    models = (student.model, teacher.model)
    if not all(block_sequences(model) for model in models):
        return []
    with ExitStack() as stack:
        recorded = [stack.enter_context(record_block_states(model)) for model in models]
        for done, (teacher_group, student_group) in enumerate(
            islice(state_groups(context, models, recorded), GROUPS)
        ):
            context.progress(ProgressEvent("comparing-student", done, GROUPS))
            if teacher_group and student_group:
                estimate.add(list(teacher_group.values()), list(student_group.values()))
                names = list(teacher_group), list(student_group)
    values = estimate.similarity().flatten().tolist() if estimate.both else []
    return [
        SimilarityRow(*pair, value) for pair, value in zip(product(*names), values, strict=True)
    ]


def state_groups(
    context: RunContext, models: tuple[nn.Module, nn.Module], recorded: list[States]
) -> Iterator[tuple[States, States]]:
    """States of both models on the same inputs, in groups of rows; one smaller group if there are
    fewer rows.
    """
    is_image_task = isinstance(context.recipe.task, ImageClassification)
    size, is_complete, waiting = GROUP_IMAGES if is_image_task else GROUP_TOKENS, False, []
    for batch in similarity_batches(context):
        for model in models:
            model(**inputs_on_device(batch, model, device_and_dtype(context.recipe)[0]))
        waiting.append(
            with_equal_row_counts(
                [
                    {
                        name: sampled_states(states, is_image_task, size)
                        for name, states in record.items()
                    }
                    for record in recorded
                ]
            )
        )
        if row_count(waiting) >= size:
            yield concatenated_states(waiting)
            is_complete, waiting = True, []
    if not is_complete and row_count(waiting) >= MIN_ROWS:
        yield concatenated_states(waiting)


def similarity_batches(context: RunContext) -> list[Batch]:
    """The recipe's calibration data. For images, enough to fill all groups, since each image is one
    row.
    """
    calibration = context.recipe.calibration
    if isinstance(context.recipe.task, ImageClassification):
        calibration = calibration.model_copy(
            update={"samples": max(calibration.samples, GROUP_IMAGES * GROUPS)}
        )
    return calibration_batches(calibration, context.recipe.task, context.folder)


@contextmanager
def record_block_states(model: nn.Module) -> Iterator[States]:
    """Hidden states before the first block and after each block in the last forward pass."""
    states: States = {}
    blocks = {name: model.get_submodule(name) for row in block_sequences(model) for name in row}

    def record_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        record_states(EMBEDDINGS, args[0] if args else kwargs.get("hidden_states"))

    def output_hook(name: str) -> Callable[..., Any]:
        return lambda module, args, output: record_states(name, first_output(output))

    def record_states(name: str, value: Any) -> None:
        # some architectures pass other objects between blocks
        if isinstance(value, torch.Tensor):
            states[name] = value

    before = next(iter(blocks.values())).register_forward_pre_hook(record_input, with_kwargs=True)
    after = [block.register_forward_hook(output_hook(name)) for name, block in blocks.items()]
    with active_hooks([before, *after]), evaluation_mode(model), keep_unpacked(model):
        yield states


def sampled_states(states: torch.Tensor, is_image_task: bool, max_rows: int) -> torch.Tensor:
    """Evenly spaced tokens, or whole images. (rows, width)"""
    rows = states.flatten(1) if is_image_task else states.flatten(0, -2)
    return rows[:: -(-len(rows) // max_rows)]


def with_equal_row_counts(both: list[States]) -> list[States]:
    """Drop states with other numbers of rows, which models have that merge tokens between
    blocks.
    """
    rows = len(next(iter(both[0].values()), ()))
    return [
        {name: states for name, states in states_by_name.items() if len(states) == rows}
        for states_by_name in both
    ]


def row_count(waiting: list[list[States]]) -> int:
    return sum(len(next(iter(states_by_name.values()), ())) for states_by_name, _ in waiting)


def concatenated_states(waiting: list[list[States]]) -> list[States]:
    return [
        {name: torch.cat([states_by_name[name] for states_by_name in group]) for name in group[0]}
        for group in zip(*waiting, strict=True)
    ]
