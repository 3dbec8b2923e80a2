"""Teacher targets for a batch, and the losses on predictions, states and attention."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.calibration.stream import active_hooks, block_lists, first_output
from engine.errors import PlainError, option_name
from engine.evaluation.measured import evaluation_mode
from engine.models.packed_modules import keep_unpacked
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.training.vocabulary import restrict_to_shared_tokens
from engine.training import EncodedExamples
from engine.training.loop import Loss, batch_logits
from engine.training.losses import attention_transfer_loss, feature_loss, label_loss, teacher_loss

# name of the projections between states of different widths, during training
PROJECTIONS = "distillation_projections"


@dataclass
class BlockStates:
    """Outputs of some blocks of a model in its last forward pass, in order."""

    names: list[str]
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)

    @contextmanager
    def record(self, model: nn.Module) -> Iterator[None]:
        def record_output(name: str) -> Any:
            return lambda module, args, output: self.outputs.update(
                {name: channels_last(first_output(output))}
            )

        with active_hooks(
            [
                model.get_submodule(name).register_forward_hook(record_output(name))
                for name in self.names
            ]
        ):
            yield


def channels_last(states: torch.Tensor) -> torch.Tensor:
    """Move channels last: (examples, channels, height, width) or (examples, tokens, width) ->
    (examples, positions, width)
    """
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


def block_names(model: nn.Module) -> list[str]:
    return max(block_lists(model), key=len, default=[])


def compared_block_pairs(
    config: Distill, student: nn.Module, teacher: nn.Module
) -> list[tuple[str, str]]:
    """Compared blocks of the student, each with the teacher's block at the same relative depth.
    Raises PlainError if there are none.
    """
    student_blocks, teacher_blocks = block_names(student), block_names(teacher)
    if not (student_blocks and teacher_blocks):
        raise PlainError(
            "The states of teacher and student cannot be compared, since one of them has no "
            f"list of blocks; set {option_name(config, 'features')} to none."
        )
    return [
        (
            student_blocks[number - 1],
            teacher_blocks[-(-number * len(teacher_blocks) // len(student_blocks)) - 1],
        )
        for number in compared_block_numbers(config, len(student_blocks))
    ]


def compared_block_numbers(config: Distill, blocks: int) -> tuple[int, ...]:
    """Numbers of the student's compared blocks, counted from 1. Raises PlainError for a number
    beyond its last block.
    """
    if config.feature_blocks in ("each", "last"):
        return tuple(range(1, blocks + 1)) if config.feature_blocks == "each" else (blocks,)
    if (last := config.compared_blocks[-1]) > blocks:
        raise PlainError(
            f"{option_name(config, 'feature_blocks')} names block {last}, and the "
            f"student has {blocks}; give numbers from 1 to {blocks}, or each, or last."
        )
    return config.compared_blocks


@dataclass
class DistillationLoss:
    """Losses of one student against its teachers. The teachers' outputs for a batch are computed
    once for all terms.
    """

    config: Distill
    student: nn.Module
    teachers: list[nn.Module]
    block_pairs: list[tuple[str, str]]  # compared blocks of the student and of its first teacher
    student_states: BlockStates
    teacher_states: BlockStates
    tokens: int | None = None  # number of tokens of the shared tokenizer
    cached_batch: EncodedExamples | None = None  # the batch of the cached teacher outputs
    cached_logits: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        config: Distill,
        student: nn.Module,
        teachers: list[nn.Module],
        tokens: int | None = None,
    ) -> "DistillationLoss":
        pairs = (
            compared_block_pairs(config, student, teachers[0])
            if config.features != "none" or config.attention_weight
            else []
        )
        student_blocks, teacher_blocks = (
            [one for one, _ in pairs],
            list(dict.fromkeys(other for _, other in pairs)),
        )
        return cls(
            config,
            student,
            teachers,
            pairs,
            BlockStates(student_blocks),
            BlockStates(teacher_blocks),
            tokens,
        )

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Record states and unpack teachers inside the context, and add projections to the
        student's parameters.
        """
        with ExitStack() as stack:
            stack.enter_context(self.student_states.record(self.student))
            stack.enter_context(self.teacher_states.record(self.teachers[0]))
            for teacher in self.teachers:
                stack.enter_context(keep_unpacked(teacher))
            yield

    def terms(self) -> dict[str, tuple[float, Loss]]:
        config = self.config
        return {
            "labels": (1 - config.distill_weight, batch_label_loss),
            "teacher": (config.distill_weight, self.logit_loss),
            "features": (config.feature_weight * (config.features != "none"), self.feature_loss),
            "attention": (config.attention_weight, self.attention_loss),
        }

    # --- terms ------------------------------------------------------------------------------------

    def logit_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        return teacher_loss(
            *self.student_and_teacher_logits(logits, batch), self.config.temperature
        )

    def feature_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        self.teacher_logits(batch, logits.device)
        parts = [
            feature_loss(
                self.projected_states(number, student_states),
                teacher_states,
                self.config.features == "cosine",
            )
            for number, (student_states, teacher_states) in enumerate(
                self.unpadded_state_pairs(batch)
            )
        ]
        return torch.stack(parts).mean()

    def attention_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        self.teacher_logits(batch, logits.device)
        real = token_mask(batch, logits.device)
        parts = [
            attention_transfer_loss(
                *(states if real is None else states * real[..., None] for states in pair)
            )
            for pair in self.state_pairs()
        ]
        return torch.stack(parts).mean()

    def student_and_teacher_logits(
        self, logits: torch.Tensor, batch: EncodedExamples
    ) -> list[torch.Tensor]:
        """Logits of the student and the teachers, restricted to shared tokens."""
        return restrict_to_shared_tokens(
            [logits, self.teacher_logits(batch, logits.device)], self.tokens
        )

    def teacher_logits(self, batch: EncodedExamples, device: torch.device) -> torch.Tensor:
        """Logits of the teachers, or their combined logits; precomputed ones are used if the batch
        has them.
        """
        if batch.teacher_logits is not None:
            return batch.teacher_logits.to(device)
        if self.cached_batch is not batch:
            self.cached_batch, self.cached_logits = (
                batch,
                self.compute_teacher_logits(batch, device),
            )
        return self.cached_logits

    def compute_teacher_logits(self, batch: EncodedExamples, device: torch.device) -> torch.Tensor:
        logits_by_teacher = []
        for teacher in self.teachers:
            with evaluation_mode(teacher, inference=False):
                logits_by_teacher.append(batch_logits(teacher, batch, device))
        return (
            logits_by_teacher[0]
            if len(logits_by_teacher) == 1
            else combined_teacher_logits(
                restrict_to_shared_tokens(logits_by_teacher, self.tokens),
                self.config.temperature,
                self.config.together,
            )
        )

    def state_pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Flattened states, (examples, positions, width) both. Raises PlainError if the numbers of
        positions differ.
        """
        pairs = [
            (
                self.student_states.outputs[student_states],
                self.teacher_states.outputs[teacher_states],
            )
            for student_states, teacher_states in self.block_pairs
        ]
        if any(
            student_states.shape[1] != teacher_states.shape[1]
            for student_states, teacher_states in pairs
        ):
            raise PlainError(
                "The states of teacher and student have different numbers of positions, so they "
                f"cannot be compared; set {option_name(Distill, 'features')} to none."
            )
        return pairs

    def unpadded_state_pairs(
        self, batch: EncodedExamples
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """States of both models without padding.  (positions, width) each"""
        real = token_mask(batch, next(self.student.parameters()).device)
        return [
            tuple(states.flatten(0, 1) if real is None else states[real] for states in pair)
            for pair in self.state_pairs()
        ]

    def projected_states(self, number: int, states: torch.Tensor) -> torch.Tensor:
        projections = getattr(self.student, PROJECTIONS, None)
        return states if projections is None else projections[number](states)


def token_mask(batch: EncodedExamples, device: torch.device) -> torch.Tensor | None:
    """Mask of tokens that are not padding.  (examples, tokens) bool"""
    mask = batch.inputs.get("attention_mask")
    return None if mask is None else mask.bool().to(device)


def batch_label_loss(logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
    return label_loss(logits, batch.targets.to(logits.device))


def combined_teacher_logits(
    teacher_logits: list[torch.Tensor], temperature: float, weighting: str
) -> torch.Tensor:
    """Logits whose softened probabilities are the mean of the teachers', or weighted by the
    probability of each one's first choice.
    """
    # (teachers, ..., classes)
    shares = torch.stack([(logits.float() / temperature).softmax(-1) for logits in teacher_logits])
    confidence = torch.stack(
        [logits.float().softmax(-1).amax(-1, keepdim=True) for logits in teacher_logits]
    )
    weights = (
        confidence / confidence.sum(0)
        if weighting == "confidence"
        else torch.full_like(confidence, 1 / len(teacher_logits))
    )
    return temperature * (weights * shares).sum(0).clamp_min(1e-30).log()


# --- projections ----------------------------------------------------------------------------------


@contextmanager
def attach_projections(
    distillation_loss: DistillationLoss, batch: EncodedExamples, seed: int
) -> Iterator[None]:
    """Attach a trainable matrix for each pair of blocks whose widths differ. It is part of the
    student during training only.
    """
    if distillation_loss.config.features == "none":
        yield
        return
    device = next(distillation_loss.student.parameters()).device
    with evaluation_mode(distillation_loss.student, inference=False):
        batch_logits(distillation_loss.student, batch, device)
    distillation_loss.teacher_logits(batch, device)
    widths = [
        (student_width.shape[-1], teacher_width.shape[-1])
        for student_width, teacher_width in distillation_loss.state_pairs()
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projections = [
            nn.Identity()
            if student_width == teacher_width
            else nn.Linear(student_width, teacher_width, bias=False)
            for student_width, teacher_width in widths
        ]
    distillation_loss.student.add_module(PROJECTIONS, nn.ModuleList(projections).to(device))
    try:
        yield
    finally:
        delattr(distillation_loss.student, PROJECTIONS)
