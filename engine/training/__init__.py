"""Training, independent of techniques.

training_config  length, learning rate and seed
datasets         labeled examples or windows of text, separate from the evaluation data
losses           loss terms, as functions
trainable_model  the dense model that is trained, from a folder
accelerated      dtypes, gradients and optimizer steps, by accelerate
loop             the training loop
trainer          a training with evaluation and early stopping, which resumes
checkpoint       its state on disk
masks            pruning masks and gates
"""

from engine.training.datasets import (
    EncodedExamples,
    TrainingData,
    load_recipe_training_data,
    load_training_data,
)
from engine.training.loop import Quality, held_out_quality, train_steps
from engine.training.trainable_model import TrainableModel, make_trainable
from engine.training.trainer import AuxiliaryModel, Trainer, WeightedLoss
from engine.training.training_config import TrainingConfig

__all__ = [
    "AuxiliaryModel",
    "EncodedExamples",
    "Quality",
    "TrainableModel",
    "Trainer",
    "TrainingConfig",
    "TrainingData",
    "WeightedLoss",
    "held_out_quality",
    "load_recipe_training_data",
    "load_training_data",
    "make_trainable",
    "train_steps",
]
