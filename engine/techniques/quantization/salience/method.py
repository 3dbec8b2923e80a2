"""The experiment behind AWQ (Lin et al. 2023, arXiv:2306.00978, tables 1 and 2): which few input
channels save a model?
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from engine.calibration import Seen
from engine.config.technique import Needs, Technique
from engine.events import ProgressEvent, VariantEvent
from engine.models.layers import Layer
from engine.results.schema.tables import NAN, SalienceRow
from engine.step.layer_swap import Trial
from engine.techniques.hooks import blueprint, compress, plan, sketch
from engine.techniques.quantization.grid import stored_grid
from engine.techniques.quantization.salience.config import AWQSalience
from engine.tensors.outliers import ScaledColumns, WithColumns, columns_of
from engine.tensors.weights import Stored

SHARES = (0.001, 0.01, 0.03)
SCALED_SHARE = 0.01
SCALES = (1.0, 1.25, 1.5, 2.0, 4.0)
KEPT_BY = ("activations", "weights", "random")


class Scaled(AWQSalience):
    """The setting of one layer: what the experiment found."""

    needs: ClassVar[Needs] = "nothing"
    columns: tuple[int, ...]
    factor: float


@dataclass(frozen=True)
class Variant:
    """Treatment of all layers in one variant."""

    kept_by: Literal["", "activations", "weights", "random"] = ""
    share: float = 0.0  # of the input channels
    scale: float = 1.0

    def stored(self, how: AWQSalience, weight: torch.Tensor, seen: Seen, seed: int) -> Stored:
        columns = salient(self.kept_by or "activations", self.share, weight, seen, seed)
        if self.kept_by:
            return WithColumns(
                tuple(weight.shape),
                stored_grid(weight, how.rounding()),
                **columns_of(weight, columns),
            )
        return (
            scaled(how, weight, columns, self.scale)
            if self.share
            else stored_grid(weight, how.rounding())
        )


VARIANTS = [
    Variant(),
    *(Variant(by, share) for share in SHARES for by in KEPT_BY),
    *(Variant("", SCALED_SHARE, scale) for scale in SCALES),
]


@plan.register
def plan_awq_salience(
    how: AWQSalience, layers: list[Layer], trial: Trial | None = None
) -> dict[str, Technique]:
    """Layers whose inputs cannot be seen are rounded."""
    if trial is None:
        return {layer.name: how for layer in layers}
    return Experiment(how, trial, [layer.name for layer in layers]).settings()


class Experiment:
    """Every variant on every layer, measured."""

    def __init__(self, how: AWQSalience, trial: Trial, names: list[str]):
        self.how, self.trial, self.names = how, trial, names
        self.seen = trial.seen(names)
        self.seed = trial.bench.recipe.seed

    def settings(self) -> dict[str, Technique]:
        """The best scale's, by the error of the layers' outputs on calibration data; all variants
        are noted.
        """
        rows = [self.row(*numbered) for numbered in enumerate(VARIANTS)]
        best = min(
            (row for row in rows if row.share and not row.kept_by), key=lambda row: row.output_error
        )
        self.trial.rows.salience.extend(row.marked(row is best) for row in rows)
        return {name: self.setting(name, best.scale) for name in self.names}

    def setting(self, name: str, factor: float) -> Technique:
        if name not in self.seen:
            return self.how.rounding()
        columns = salient(
            "activations", SCALED_SHARE, self.trial.weight_of(name), self.seen[name], self.seed
        )
        return Scaled(**self.how.model_dump(), columns=tuple(columns.tolist()), factor=factor)

    def row(self, number: int, variant: Variant) -> SalienceRow:
        stored = dict(self.layers(variant))
        error, size = self.output_error(stored), sum(each.nbytes for each in stored.values())
        event = VariantEvent("measuring-variant", variant=number + 1, variants=len(VARIANTS))
        measured = self.trial.measured(stored, event)
        scores = {
            name: measured.scores.get(name, NAN) for name in ("perplexity", "accuracy", "loss")
        }
        bits = 8 * size / sum(each.shape[0] * each.shape[1] for each in stored.values())
        return SalienceRow(variant.kept_by, variant.share, variant.scale, bits, error, **scores)

    def layers(self, variant: Variant) -> Iterator[tuple[str, Stored]]:
        for name in self.names:
            done = len(self.trial.rows.salience)
            self.trial.bench.progress(ProgressEvent("rounding-layers", done, len(VARIANTS)))
            weight, seen = self.trial.weight_of(name), self.seen.get(name)
            yield (
                name,
                variant.stored(self.how, weight, seen, self.seed)
                if seen
                else stored_grid(weight, self.how.rounding()),
            )

    def output_error(self, stored: dict[str, Stored]) -> float:
        """|XW - XW^| / |XW| over all layers, on a sample of calibration inputs."""
        missed = total = 0.0
        for name, seen in self.seen.items():
            vectors, weight = seen.sample_vectors(), self.trial.weight_of(name)
            missed += (
                (vectors @ (stored[name].dense().to(weight.device) - weight).T)
                .square()
                .sum()
                .item()
            )
            total += (vectors @ weight.T).square().sum().item()
        return (missed / total) ** 0.5 if total else 0.0


def salient(by: str, share: float, weight: torch.Tensor, seen: Seen, seed: int) -> torch.Tensor:
    """The chosen share of the columns, at least one, ascending.  (kept,)"""
    strength: dict[str, Callable[[], torch.Tensor]] = {
        "activations": lambda: seen.abs_mean.cpu(),
        "weights": lambda: weight.norm(dim=0).cpu(),
        "random": lambda: torch.rand(
            weight.shape[1], generator=torch.Generator().manual_seed(seed)
        ),
    }
    count = channels(share, weight.shape[1])
    return strength[by]().topk(count).indices.sort().values.to(weight.device)


def channels(share: float, in_: int) -> int:
    return min(in_, max(1, round(share * in_)))


def scaled(
    how: AWQSalience, weight: torch.Tensor, columns: torch.Tensor, factor: float
) -> ScaledColumns:
    larger = weight.clone()
    larger[:, columns] *= factor
    return ScaledColumns(
        tuple(weight.shape), stored_grid(larger, how.rounding()), columns.to(torch.int32), factor
    )


@compress.register
def compress_scaled(how: Scaled, weight: torch.Tensor) -> ScaledColumns:
    return scaled(how, weight, torch.tensor(how.columns, device=weight.device), how.factor)


@compress.register
def compress_awq_salience(how: AWQSalience, weight: torch.Tensor, seen: Seen) -> ScaledColumns:
    """A look at one layer: the strongest inputs' columns doubled."""
    return scaled(how, weight, salient("activations", SCALED_SHARE, weight, seen, 0), 2.0)


@blueprint.register
def blueprint_awq_salience(how: AWQSalience, shape: tuple[int, int]) -> ScaledColumns:
    return ScaledColumns(
        shape,
        blueprint(how.rounding(), shape),
        sketch(channels(SCALED_SHARE, shape[1]), dtype=torch.int32),
        2.0,
    )
