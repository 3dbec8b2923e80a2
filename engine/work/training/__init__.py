"""Training: a course, what is learnt from, what is paid for, and the loop that runs it. Nothing here knows a technique.

course      how long, how fast, with what seed
lessons     labelled examples or windows of text, never those that quality is measured on
losses      terms of the loss, as functions
pupil       the dense model that learns, from a folder
accelerated number formats, slopes and steps, by accelerate
loop        one step after the other
study       a training that is watched, kept at its best, and taken up again
checkpoint  where it stands, on disk
cuts        weights that the forward pass sees as zero, by a mask or by gates
"""

from engine.work.training.course import Course
from engine.work.training.lessons import Exercises, Lessons, lessons_for, lessons_of
from engine.work.training.loop import Quality, quality_of, trained
from engine.work.training.pupil import Pupil, pupil_of
from engine.work.training.study import Blend, Companion, Study

__all__ = [
    "Blend", "Companion", "Course", "Exercises", "Lessons", "Pupil", "Quality", "Study", "lessons_for", "lessons_of", "pupil_of", "quality_of",
    "trained",
]  # fmt: skip
