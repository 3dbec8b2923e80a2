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

from engine.training.datasets import Exercises, Lessons, lessons_for, lessons_of
from engine.training.loop import Quality, quality_of, trained
from engine.training.trainable_model import Pupil, pupil_of
from engine.training.trainer import Blend, Companion, Study
from engine.training.training_config import Course

__all__ = [
    "Blend",
    "Companion",
    "Course",
    "Exercises",
    "Lessons",
    "Pupil",
    "Quality",
    "Study",
    "lessons_for",
    "lessons_of",
    "pupil_of",
    "quality_of",
    "trained",
]
