"""Bytes of a model's files before they are written."""

from engine.work.layers import blocks_of
from engine.work.opened import Opened
from engine.work.stored.files import file_bytes
from engine.work.stored.weights import Stored


def written_bytes(at: Opened, plans: dict[str, Stored]) -> int:
    """Of all files of a run that stores some layers as planned and keeps the others."""
    held = {layer.name: at.model.get_submodule(layer.name).stored for layer in at.layers} | plans
    return sum(file_bytes({layer.name: held[layer.name] for layer in block}) for block in blocks_of(at.layers)) + file_bytes({}, at.plain)
