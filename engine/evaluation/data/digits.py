"""Handwritten digits: 1,797 real images of 8 x 8 pixels (UCI, in scikit-learn), in three fixed,
stratified splits.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from engine.errors import PlainError

DigitSplit = Literal["train", "validation", "test"]
NAMES = tuple("0123456789")


@dataclass(frozen=True)
class Digits:
    images: list[Image.Image]  # 8 x 8, gray, 0 to 255
    labels: list[int]


def digit_splits(labels: np.ndarray) -> np.ndarray:
    """Split each ten images of a digit, in order: two for the test, one for validation, seven for
    training.
    """
    order_in_class = np.zeros(len(labels), dtype=int)
    for digit in np.unique(labels):
        order_in_class[labels == digit] = np.arange((labels == digit).sum()) % 10
    return np.where(
        order_in_class < 2, "test", np.where(order_in_class == 2, "validation", "train")
    )


def digits(split: str) -> Digits:
    """Images and labels of one split of the bundled handwritten digits.

    Raises PlainError for an unknown split.
    """
    from sklearn.datasets import load_digits

    if split not in ("train", "validation", "test"):
        raise PlainError(
            f"bundled:digits has no split named {split[:40]!r}; it has train, validation and test."
        )
    data = load_digits()
    chosen = np.flatnonzero(digit_splits(data.target) == split)
    pixels = np.round(data.images[chosen] * (255 / 16)).astype(np.uint8)  # stored as 0 to 16
    return Digits([Image.fromarray(image) for image in pixels], data.target[chosen].tolist())
