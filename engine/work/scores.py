"""Quality and size of a model before and after, from what was measured and what was written."""

from engine.results.record import Scores
from engine.results.tables import LayerRow
from engine.work.layers import Layer
from engine.work.models import Folder
from engine.work.opened import Opened
from engine.work.tasks import Measured


def baseline_scores(folder: Folder, original: Opened, targets: list[Layer], measured: Measured) -> Scores:
    """Bits per weight are those of the layers that a run compresses, or of all layers where it compresses none."""
    counted = targets or [layer for layer in original.layers if not layer.tied_to]
    bits = sum(original.held_bytes(layer) for layer in counted) * 8 / sum(layer.parameters for layer in counted)
    return Scores(size_bytes=folder.size_bytes, bits_per_weight=bits, parameters=original.parameters, **measured.scores)


def result_scores(before: Scores, layers: list[LayerRow], size_bytes: int, parameters: int, measured: Measured, agreement: float) -> Scores:
    treated = [row for row in layers if row.technique and row.parameters]
    bits = sum(row.size_bytes for row in treated) * 8 / sum(row.parameters for row in treated) if treated else before.bits_per_weight
    sizes = {"size_bytes": size_bytes, "bits_per_weight": bits, "compression": before.size_bytes / size_bytes}
    return Scores(**sizes, parameters=parameters, agreement=agreement, **measured.scores)
