"""The experiment behind AWQ (Lin et al. 2023, arXiv:2306.00978, tables 1 and 2): the effect of
keeping or scaling a few input channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from engine.calibration import InputStats
from engine.config.technique import Needs, Technique
from engine.events import ProgressEvent, VariantEvent
from engine.models.layers import Layer
from engine.results.schema.tables import NAN
from engine.step.layer_swap import LayerSwap
from engine.techniques.hooks import compress, meta_tensor, plan, storage_plan
from engine.techniques.quantization.grid import round_to_grid
from engine.techniques.quantization.salience.config import AWQSalience
from engine.techniques.quantization.salience.tables import SalienceRow
from engine.tensors.outliers import ScaledColumns, WithOutlierColumns, outlier_fields
from engine.tensors.weights import StoredWeight

SHARES = (0.001, 0.01, 0.03)
SCALED_SHARE = 0.01
SCALES = (1.0, 1.25, 1.5, 2.0, 4.0)
KEPT_BY = ("activations", "weights", "random")


class LayerSalience(AWQSalience):
    """Setting of one layer: the result of the experiment."""

    needs: ClassVar[Needs] = "nothing"
    columns: tuple[int, ...]
    factor: float


@dataclass(frozen=True)
class Variant:
    """Treatment of all layers in one variant."""

    kept_by: Literal["", "activations", "weights", "random"] = ""
    share: float = 0.0  # share of the input channels
    scale: float = 1.0

    def treated_weight(
        self, config: AWQSalience, weight: torch.Tensor, stats: InputStats, seed: int
    ) -> StoredWeight:
        columns = salient_columns(self.kept_by or "activations", self.share, weight, stats, seed)
        if self.kept_by:
            return WithOutlierColumns(
                tuple(weight.shape),
                round_to_grid(weight, config.rounding()),
                **outlier_fields(weight, columns),
            )
        return (
            scaled_columns_weight(config, weight, columns, self.scale)
            if self.share
            else round_to_grid(weight, config.rounding())
        )


VARIANTS = [
    Variant(),
    *(Variant(by, share) for share in SHARES for by in KEPT_BY),
    *(Variant("", SCALED_SHARE, scale) for scale in SCALES),
]


@plan.register
def plan_awq_salience(
    config: AWQSalience, layers: list[Layer], layer_swap: LayerSwap | None = None
) -> dict[str, Technique]:
    """Layers of the experiment; layers whose inputs cannot be observed are rounded."""
    if layer_swap is None:
        return {layer.name: config for layer in layers}
    return SalienceExperiment(config, layer_swap, [layer.name for layer in layers]).settings()


class SalienceExperiment:
    """Evaluate every variant on all layers."""

    def __init__(self, config: AWQSalience, layer_swap: LayerSwap, names: list[str]):
        self.config, self.layer_swap, self.names = config, layer_swap, names
        self.stats = layer_swap.input_stats(names)
        self.seed = layer_swap.context.recipe.seed

    def settings(self) -> dict[str, Technique]:
        """Choose the scale with the least output error on calibration data, and record all
        variants.
        """
        rows = [self.measure_variant(*numbered) for numbered in enumerate(VARIANTS)]
        best = min(
            (row for row in rows if row.share and not row.kept_by), key=lambda row: row.output_error
        )
        self.layer_swap.tables.salience.extend(row.with_chosen(row is best) for row in rows)
        return {name: self.setting(name, best.scale) for name in self.names}

    def setting(self, name: str, factor: float) -> Technique:
        if name not in self.stats:
            return self.config.rounding()
        columns = salient_columns(
            "activations",
            SCALED_SHARE,
            self.layer_swap.weight_of(name),
            self.stats[name],
            self.seed,
        )
        return LayerSalience(
            **self.config.model_dump(), columns=tuple(columns.tolist()), factor=factor
        )

    def measure_variant(self, number: int, variant: Variant) -> SalienceRow:
        stored = dict(self.treated_layers(variant))
        error, size = self.output_error(stored), sum(weight.nbytes for weight in stored.values())
        event = VariantEvent("measuring-variant", variant=number + 1, variants=len(VARIANTS))
        measured = self.layer_swap.evaluate(stored, event)
        scores = {
            name: measured.scores.get(name, NAN) for name in ("perplexity", "accuracy", "loss")
        }
        bits = 8 * size / sum(weight.shape[0] * weight.shape[1] for weight in stored.values())
        return SalienceRow(variant.kept_by, variant.share, variant.scale, bits, error, **scores)

    def treated_layers(self, variant: Variant) -> Iterator[tuple[str, StoredWeight]]:
        for name in self.names:
            done = len(self.layer_swap.tables.salience)
            self.layer_swap.context.progress(ProgressEvent("rounding-layers", done, len(VARIANTS)))
            weight, stats = self.layer_swap.weight_of(name), self.stats.get(name)
            yield (
                name,
                variant.treated_weight(self.config, weight, stats, self.seed)
                if stats
                else round_to_grid(weight, self.config.rounding()),
            )

    def output_error(self, stored: dict[str, StoredWeight]) -> float:
        """|XW - XW^| / |XW| over all layers, on a sample of calibration inputs."""
        error = total = 0.0
        for name, stats in self.stats.items():
            vectors, weight = stats.sample_vectors(), self.layer_swap.weight_of(name)
            error += (
                (vectors @ (stored[name].to_dense().to(weight.device) - weight).T)
                .square()
                .sum()
                .item()
            )
            total += (vectors @ weight.T).square().sum().item()
        return (error / total) ** 0.5 if total else 0.0


def salient_columns(
    by: str, share: float, weight: torch.Tensor, stats: InputStats, seed: int
) -> torch.Tensor:
    """The chosen share of the columns, at least one, ascending.  (kept,)"""
    strength: dict[str, Callable[[], torch.Tensor]] = {
        "activations": lambda: stats.abs_mean.cpu(),
        "weights": lambda: weight.norm(dim=0).cpu(),
        "random": lambda: torch.rand(
            weight.shape[1], generator=torch.Generator().manual_seed(seed)
        ),
    }
    count = salient_count(share, weight.shape[1])
    return strength[by]().topk(count).indices.sort().values.to(weight.device)


def salient_count(share: float, in_: int) -> int:
    return min(in_, max(1, round(share * in_)))


def scaled_columns_weight(
    config: AWQSalience, weight: torch.Tensor, columns: torch.Tensor, factor: float
) -> ScaledColumns:
    larger = weight.clone()
    larger[:, columns] *= factor
    return ScaledColumns(
        tuple(weight.shape),
        round_to_grid(larger, config.rounding()),
        columns.to(torch.int32),
        factor,
    )


@compress.register
def compress_layer_salience(config: LayerSalience, weight: torch.Tensor) -> ScaledColumns:
    return scaled_columns_weight(
        config, weight, torch.tensor(config.columns, device=weight.device), config.factor
    )


@compress.register
def compress_awq_salience(
    config: AWQSalience, weight: torch.Tensor, stats: InputStats
) -> ScaledColumns:
    """What-if on one layer: columns of the strongest inputs doubled."""
    return scaled_columns_weight(
        config, weight, salient_columns("activations", SCALED_SHARE, weight, stats, 0), 2.0
    )


@storage_plan.register
def storage_plan_awq_salience(config: AWQSalience, shape: tuple[int, int]) -> ScaledColumns:
    return ScaledColumns(
        shape,
        storage_plan(config.rounding(), shape),
        meta_tensor(salient_count(SCALED_SHARE, shape[1]), dtype=torch.int32),
        2.0,
    )
