"""Calibration data on its way through tiny models."""

import torch

from engine.calibration import CalibrationStream
from engine.models.loaded_model import LoadedModel, load_model
from engine.models.loading import resolve_model
from tests.tiny import tiny

CPU = torch.device("cpu")


def batches_for(architecture: str, count: int = 3) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    if architecture == "resnet":
        return [{"pixel_values": torch.randn(2, 1, 16, 16, generator=draw)} for _ in range(count)]
    return [
        {"input_ids": torch.randint(4, 200, (2, 12 + index), generator=draw)}
        for index in range(count)
    ]


def subject_of(architecture: str, folder) -> LoadedModel:
    return load_model(resolve_model(str(tiny(architecture, folder))), CPU, torch.float32)


def stream_of(architecture: str, subject: LoadedModel) -> CalibrationStream:
    return CalibrationStream(subject.model, batches_for(architecture), CPU)
