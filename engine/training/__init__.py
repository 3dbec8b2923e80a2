"""Training: a course, what is learned from, what is paid for, and the loop that runs it. Nothing
here knows a technique.

course      how long, how fast, with what seed
lessons     labeled examples or windows of text, never those that quality is measured on
losses      terms of the loss, as functions
pupil       the dense model that learns, from a folder
accelerated number formats, gradients and steps, by accelerate
loop        one step after the other
study       a training that is watched, kept at its best, and taken up again
checkpoint  where it stands, on disk
cuts        weights that the forward pass sees as zero, by a mask or by gates
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
