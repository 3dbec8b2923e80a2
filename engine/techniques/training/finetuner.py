"""Compression-aware training: the model trains in the form in which it is stored, on labels, the
uncompressed model's predictions, and penalties.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from engine.errors import PlainError, option_name
from engine.evaluation.measured import evaluation_mode
from engine.events import TrainingEvent
from engine.models.loaded_model import device_and_dtype, load_model
from engine.models.loading import resolve_model
from engine.models.packed_modules import keep_unpacked
from engine.recipe import Recipe
from engine.results.schema.tables import CurveRow
from engine.runtime.threads import threads_to_train
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.techniques.hooks import check_recipe
from engine.techniques.training.options import CompressionAwareTraining
from engine.techniques.training.training_setup import load_training_setup
from engine.techniques.training.vocabulary import restrict_to_shared_tokens, token_count
from engine.training import (
    EncodedExamples,
    TrainableModel,
    Trainer,
    TrainingConfig,
    TrainingData,
    WeightedLoss,
)
from engine.training.checkpoint import checkpoint_file
from engine.training.loop import Loss, batch_logits
from engine.training.losses import label_loss, teacher_loss

Penalty = Callable[[], torch.Tensor]


@dataclass
class Finetuner:
    """Training of one model."""

    config: CompressionAwareTraining
    context: RunContext
    trainable: TrainableModel
    phase: str  # name in the training curves
    training_data: TrainingData
    training_config: TrainingConfig
    penalty: Penalty | None = None  # additional penalty
    file: Path | None = None  # checkpoint file
    rows: list[CurveRow] = field(default_factory=list)

    def train(self) -> None:
        """Train, and leave the model in its best state on held-out examples, which may be the
        initial one.
        """
        kept = {
            "patience": self.config.patience,
            "file": self.file,
            "evaluate_every": self.config.look_every,
            "rows": self.rows,
        }
        study = Trainer(
            self.context,
            self.trainable.model,
            self.training_data,
            self.training_config,
            WeightedLoss(self.terms()),
            self.phase,
            **kept,
        )
        self.context.progress(TrainingEvent("training", 0, self.training_config.steps))
        study.run()

    def terms(self) -> dict[str, tuple[float, Loss]]:
        weight = self.config.distill_weight
        paid = (1.0, lambda logits, batch: self.penalty()) if self.penalty else (0.0, None)
        return {
            "labels": (1 - weight, self.label_loss),
            "teacher": (weight, self.teacher_loss),
            "regularizer": paid,
        }

    def label_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        return label_loss(logits, batch.targets.to(logits.device))

    def teacher_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        """Distillation loss against the uncompressed model."""
        with evaluation_mode(self.teacher, inference=False), keep_unpacked(self.teacher):
            teacher_logits = batch_logits(self.teacher, batch, logits.device)
        return teacher_loss(
            *restrict_to_shared_tokens([logits, teacher_logits], token_count(self.context.folder)),
            self.config.temperature,
        )

    @cached_property
    def teacher(self) -> nn.Module:
        """The recipe's original model, before any step."""
        if not self.context.step:
            return self.trainable.original.model
        return load_model(
            resolve_model(self.context.recipe.model), *device_and_dtype(self.context.recipe)
        ).model


@check_recipe.register
def refuse_unfit_aware(config: CompressionAwareTraining, recipe: Recipe) -> None:
    check_paged_optimizer(config, device_and_dtype(recipe)[0])


def check_paged_optimizer(config: CompressionAwareTraining, device: torch.device) -> None:
    """Check that the optimizer can run on the device.

    Raises PlainError for a paged optimizer without a GPU.
    """
    if config.uses_paged_optimizer and device.type != "cuda":
        raise PlainError(
            "The paged optimizer needs a CUDA device, and this run computes on the "
            f"{device.type}; set {option_name(config, 'optimizer')} to adamw, or run on a "
            "machine with one."
        )


def finetune(
    config: CompressionAwareTraining,
    context: RunContext,
    technique_input: TechniqueInput,
    trainable: TrainableModel,
    phase: str,
    penalty: Penalty | None = None,
) -> None:
    """Train the model, and record its curve however the training ends."""
    training_data, training_config = load_training_setup(config, context)
    with threads_to_train(technique_input.original.parameters):
        Finetuner(
            config,
            context,
            trainable,
            phase,
            training_data,
            training_config,
            penalty,
            checkpoint_file(technique_input.open_checkpoint_folder(), phase),
            technique_input.layer_swap.tables.curves,
        ).train()
