"""State and operations shared by all trainings of one distillation run."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from engine.models.loaded_model import device_and_dtype
from engine.step.pruning_plan import TechniqueInput
from engine.step.replacement_model import ReplacementModel
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.techniques.distillation.distill.distillation_loss import DistillationLoss
from engine.techniques.distillation.distill.students import build_student
from engine.techniques.distillation.distill.teacher_logits import with_teacher_logits
from engine.techniques.distillation.options import ModelTraining
from engine.techniques.training.training_setup import load_training_setup
from engine.training import AuxiliaryModel, Trainer, TrainingConfig, TrainingData, WeightedLoss
from engine.training.accelerated import accelerator_for
from engine.training.checkpoint import checkpoint_file


@dataclass(frozen=True)
class DistillRun:
    """State shared by the trainings of one run."""

    config: ModelTraining
    context: RunContext
    technique_input: TechniqueInput
    training_data: TrainingData
    training_config: TrainingConfig
    tables: TableBuilder
    checkpoint_folder: Path | None  # returns the folder for checkpoints
    device: torch.device

    @classmethod
    def of(
        cls,
        config: ModelTraining,
        context: RunContext,
        technique_input: TechniqueInput,
        tables: TableBuilder,
    ) -> "DistillRun":
        training_data, training_config = load_training_setup(config, context)
        return cls(
            config,
            context,
            technique_input,
            training_data,
            training_config,
            tables,
            technique_input.open_checkpoint_folder(),
            device_and_dtype(context.recipe)[0],
        )

    def prepare_student(self, seed: int) -> ReplacementModel:
        """Prepare the student for training on the run's device."""
        student = build_student(self.config, self.technique_input, seed)
        self.context.notes.extend(
            note for note in student_notes(self.config, student) if note not in self.context.notes
        )
        return replace(student, model=student.model.to(self.device).requires_grad_(True))

    def precomputes_teacher_logits(self, distillation_loss: DistillationLoss) -> bool:
        """Return True if all teacher predictions are computed before training: every example is
        used, and only its prediction. Predictions for
        every token of a text would fill the memory.
        """
        comes_again = self.training_config.steps * self.training_config.batch >= len(
            self.training_data.train
        )
        return (
            bool(distillation_loss.config.distill_weight)
            and comes_again
            and not distillation_loss.block_pairs
            and self.training_data.train.targets.ndim == 1
        )

    def with_teacher_logits(self, distillation_loss: DistillationLoss) -> "DistillRun":
        with accelerator_for(self.device, self.training_config.half).autocast():
            train = with_teacher_logits(
                self.context,
                self.training_data.train,
                lambda part: distillation_loss.compute_teacher_logits(part, self.device).float(),
            )
        return replace(self, training_data=replace(self.training_data, train=train))

    def train(
        self,
        model: nn.Module,
        loss: WeightedLoss,
        phase: str = "student",
        auxiliary: AuxiliaryModel | None = None,
    ) -> Trainer:
        """Train a model to its best state and record the training curve."""
        file = checkpoint_file(self.checkpoint_folder, phase)
        trainer = Trainer(
            self.context,
            model,
            self.training_data,
            self.training_config,
            loss,
            phase,
            self.config.patience,
            file,
            auxiliary=auxiliary,
        )
        try:
            trainer.run()
        finally:
            self.tables.curves.extend(trainer.rows)
        return trainer


def student_notes(config: ModelTraining, student: ReplacementModel) -> list[str]:
    """Notes on a student that differs from its file."""
    random_head_note = (
        f"{student.source} has no classification head, so the student started with a random one "
        "for the teacher's classes."
    )
    heads_note = (
        f"The student's attention is cut into {getattr(config, 'student_heads', 0)} heads, with "
        "the same total width: that alone saves nothing."
    )
    return [random_head_note] * student.source.without_head + [heads_note] * bool(
        student.config and getattr(config, "student_heads", 0)
    )
