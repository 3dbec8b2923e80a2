"""A discriminator is trained to tell a student's outputs from its teacher's, and the student to
deceive it (Goodfellow et al. 2014, arXiv:1406.2661; for distillation Xu et al. 2018,
arXiv:1709.00513).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from engine.evaluation.measured import evaluation_mode
from engine.techniques.distillation.distill.distillation_loss import DistillationLoss
from engine.training import AuxiliaryModel, EncodedExamples, TrainingConfig
from engine.training.loop import batch_logits

HIDDEN = 64


@dataclass
class Discriminator(AuxiliaryModel):
    """Classifies log-probabilities; 1 is the teacher."""

    loss: DistillationLoss

    @classmethod
    def for_student(
        cls,
        distillation_loss: DistillationLoss,
        examples: EncodedExamples,
        training_config: TrainingConfig,
    ) -> Self:
        device = next(distillation_loss.student.parameters()).device
        sample = examples.subset(slice(0, 2))
        with evaluation_mode(distillation_loss.student, inference=False):
            classes = distillation_loss.student_and_teacher_logits(
                batch_logits(distillation_loss.student, sample, device), sample
            )[0].shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training_config.seed)
            discriminator = nn.Sequential(
                nn.Linear(classes, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1)
            ).to(device)
        return cls(
            discriminator,
            torch.optim.AdamW(discriminator.parameters(), lr=training_config.rate),
            distillation_loss,
        )

    def adversarial_loss(self, logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        """Adversarial loss of the student. The discriminator is trained on the same
        outputs first.
        """
        student, teacher = (
            output.flatten(0, -2).float().log_softmax(-1)
            for output in self.loss.student_and_teacher_logits(logits, batch)
        )
        self.train(student.detach(), teacher)
        scores = self.model.requires_grad_(False)(student)
        self.model.requires_grad_(True)
        return binary_cross_entropy_with_logits(scores, torch.ones_like(scores))

    def train(self, student: torch.Tensor, teacher: torch.Tensor) -> None:
        scores = self.model(torch.cat([teacher, student]))
        labels = torch.cat([torch.ones(len(teacher), 1), torch.zeros(len(student), 1)]).to(
            scores.device
        )
        self.optimizer.zero_grad(set_to_none=True)
        binary_cross_entropy_with_logits(scores, labels).backward()
        self.optimizer.step()
