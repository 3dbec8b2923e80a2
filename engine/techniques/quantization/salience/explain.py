"""Input channels that each criterion would keep."""

import torch

from engine.results.schema.explanations import Explanation
from engine.step.compressed_layer import CompressedLayer
from engine.techniques.explanations import empty_levels, frame, part_of
from engine.techniques.hooks import explanation
from engine.techniques.quantization.salience.config import AWQSalience
from engine.techniques.quantization.salience.method import KEPT_BY, SCALED_SHARE, salient_columns
from engine.techniques.quantization.salience.tables import CriterionRow

DOTS = 1024  # evenly spaced input channels that are shown


@explanation.register
def explanation_awq_salience(config: AWQSalience, compressed: CompressedLayer) -> Explanation:
    """Show the 1% of the input channels that each criterion would keep."""
    weight, in_ = compressed.weight, compressed.weight.shape[1]
    kept = {
        by: torch.isin(
            torch.arange(in_), salient_columns(by, SCALED_SHARE, weight, compressed.stats, 0)
        )
        for by in KEPT_BY
    }
    shown = torch.arange(0, in_, -(-in_ // DOTS))
    shown = torch.cat([shown, *(chosen.nonzero().flatten() for chosen in kept.values())]).unique()
    columns = {"activation": compressed.stats.abs_mean, "weight": weight.norm(dim=0)}
    columns |= {
        "by_activations": kept["activations"],
        "by_weights": kept["weights"],
        "at_random": kept["random"],
    }
    rows = frame(
        CriterionRow, column=shown, **{name: values[shown] for name, values in columns.items()}
    )
    return Explanation(CriterionRow, rows, empty_levels(), part_of("input columns", len(rows), in_))
