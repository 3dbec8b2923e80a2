"""Size and quality after each step of a recipe: the original, every intermediate model and the
result.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.evaluation import EvaluationResult
from engine.measurement.scores import result_scores
from engine.models.loaded_model import LoadedModel
from engine.results.schema.record import Scores
from engine.results.schema.tables import LatencyRow, StageRow

SIZES = ("size_bytes", "parameters", "bits_per_weight", "bits_per_parameter")
Qualities = dict[str, EvaluationResult]  # contexts by split, the recipe's main split first


@dataclass
class StepMetrics:
    """Sizes and scores of the original, and a row for each score of each later model."""

    before: Scores
    baseline: Qualities
    rows: list[StageRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record_scores(0, "", self.before, self.baseline)

    def record_model(
        self, step: int, technique: str, written: LoadedModel, qualities: Qualities
    ) -> Scores:
        """Quality of the model that a step has written, loaded from its files."""
        agreements = {
            split: agreement(measured, self.baseline[split])
            for split, measured in qualities.items()
        }
        scores = result_scores(self.before, written, main_split(qualities), main_split(agreements))
        self.record_scores(step, technique, scores, qualities)
        self.rows.extend(
            StageRow(step, technique, split, "agreement", value)
            for split, value in agreements.items()
        )
        return scores

    def record_scores(
        self, step: int, technique: str, scores: Scores, qualities: Qualities
    ) -> None:
        self.rows.extend(
            StageRow(step, technique, "", name, float(getattr(scores, name))) for name in SIZES
        )
        for split, measured in qualities.items():
            self.rows.extend(
                StageRow(step, technique, split, name.removeprefix("macro_"), value)
                for name, value in measured.scores.items()
            )

    def record_latency(self, step: int, technique: str, latency: list[LatencyRow]) -> None:
        """One example for the original and for the compressed model, if a kernel was timed."""
        seconds = {
            row.version: row.median_ms / 1000
            for row in latency
            if row.what == "whole model" and row.batch == 1 and row.kernel
        }
        stages = {"original": (0, ""), "compressed": (step, technique)}
        self.rows.extend(
            StageRow(*stages[version], "", "latency_seconds", value)
            for version, value in seconds.items()
        )


def agreement(measured: EvaluationResult, baseline: EvaluationResult) -> float:
    """Share of equal predictions for the same inputs."""
    return float(np.mean(measured.guesses == baseline.guesses))


def main_split(by_split: dict[str, Any]) -> Any:
    return next(iter(by_split.values()))
