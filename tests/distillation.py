"""Short trainings of students, and what tests read of them."""

import pytest
import torch

from engine.errors import PlainError

CPU = torch.device("cpu")


SHORT = {"technique": "distill", "steps": 4, "batch": 4, "rate": 1e-2}


FINE = {"technique": "fine-tune", "steps": 4, "batch": 4, "rate": 1e-2}


KINDS = ("llama", "bert", "resnet")


def curve(outcome, name="loss", phase="student") -> list[float]:
    rows = outcome.tables.curves
    return rows[(rows["name"] == name) & (rows["phase"] == phase)]["value"].tolist()


def error_message(run_step, *arguments, **fields) -> str:
    with pytest.raises(PlainError) as error:
        run_step(*arguments, **fields)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    return str(error.value)
