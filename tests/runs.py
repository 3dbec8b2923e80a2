"""Run records and tables with made-up numbers, for tests of what keeps and compares them. No
torch.
"""

from datetime import UTC, datetime, timedelta

from engine.recipe import Recipe
from engine.results.schema.record import Protocol, RunRecord, Scores, Summary
from engine.results.schema.run_tables import Tables
from engine.results.schema.tables import (
    ChannelRow,
    CurveRow,
    HistogramRow,
    InputRow,
    LatencyRow,
    LayerRow,
    LedgerRow,
    LevelRow,
    MistakeRow,
    SampleRow,
    SearchRow,
    SimilarityRow,
    StageRow,
    StructureRow,
    SurfaceRow,
    VerdictRow,
    table,
)
from engine.results.store.process_lease import current_owner
from engine.techniques.distillation.distill.tables import WrittenRow
from engine.techniques.low_rank.tables import RankRow, SingularRow
from engine.techniques.pruning.gradual.tables import ScheduleRow
from engine.techniques.pruning.lottery_ticket.tables import LotteryRow
from engine.techniques.pruning.tables import ImportanceRow, MaskRow, StorageRow
from engine.techniques.quantization.mixed_precision.tables import SensitivityRow
from engine.techniques.quantization.salience.tables import SalienceRow

START = datetime(2026, 1, 1, tzinfo=UTC)
PROTOCOL = Protocol(
    task="language-modeling",
    data="bundled:docs",
    fingerprint="f00d",
    measure="Perplexity.",
    context=256,
    windows=4,
    targets=1020,
)


def scores(size_bytes=1000, perplexity=10.0, **others) -> Scores:
    return Scores(
        **{"size_bytes": size_bytes, "bits_per_weight": 16.0, "perplexity": perplexity} | others
    )


def summary(run="run-0001", result=None, baseline=None, protocol=PROTOCOL, **others) -> Summary:
    known = {
        "model": "bundled:docs-lm",
        "revision": "r1",
        "architecture": "Llama",
        "device": "cpu",
        "seconds": 2.0,
        "compress_seconds": 1.0,
    }
    result, baseline = result or scores(500, 11.0, compression=2.0), baseline or scores()
    return Summary(
        run=run,
        peak_rss_bytes=1,
        protocol=protocol,
        baseline=baseline,
        result=result,
        **known | others,
    )


def record(number=1, status="queued", bits=4, **others) -> RunRecord:
    """A run of this process; higher numbers are newer."""
    recipe = Recipe.from_dict({"steps": [{"technique": "round-to-nearest", "bits": bits}]})
    known = {
        "id": f"run-{number:04}",
        "key": f"key-{number}",
        "recipe": recipe,
        "status": status,
        "created": START + timedelta(minutes=number),
        "owner": current_owner(),
    }
    return RunRecord(**known | others)


def finished_record(number=1, **others) -> RunRecord:
    """A finished run; ``others`` are its summary's."""
    return record(number, "done", summary=summary(f"run-{number:04}", **others))


def layer(name="blocks.0.mlp", shape=(3, 4), **others) -> LayerRow:
    known = {
        "kind": "linear",
        "parameters": 12,
        "block": "blocks.0",
        "tied_to": "",
        "technique": "round-to-nearest",
    }
    sizes = {"original_bytes": 48, "size_bytes": 12, "bits_per_weight": 8.0, "relative_error": 0.1}
    return LayerRow(**{"name": name, "shape": shape} | known | sizes | others)


def tables(*layers: LayerRow) -> Tables:
    """One row or two of everything, with NaN, several ranks and letters from outside ASCII."""
    return Tables(
        layers=table(
            layers
            or (
                layer(),
                layer("conv", (8, 3, 5, 5), output_error=0.25, original_shape=(16, 3, 5, 5)),
            ),
            LayerRow,
        ),
        channels=table([ChannelRow("conv", 0, -1.0, 1.0, 0.5)], ChannelRow),
        histograms=table([HistogramRow("conv", "original", -1.0, 1.0, 7)], HistogramRow),
        levels=table([LevelRow("conv", -0.5, 7)], LevelRow),
        ledger=table([LedgerRow("", "file headers", 8)], LedgerRow),
        samples=table([SampleRow("déjà", "vu\n", "→ 😀")], SampleRow),
        searches=table([SearchRow("conv", "norm", 0.5, 0.25, True)], SearchRow),
        inputs=table([InputRow("conv", 0, 0.5, 3.0, 1.0, 0.1)], InputRow),
        surfaces=table([SurfaceRow("conv", "original", 0, 0, 3.0)], SurfaceRow),
        sensitivity=table(
            [SensitivityRow("conv", 4, "symmetric", "absmax", 100, 0.2, 0.1, True)], SensitivityRow
        ),
        salience=table(
            [
                SalienceRow("", 0.0, 1.0, 3.2, 0.2, 15.0, float("nan"), 2.7),
                SalienceRow("activations", 0.01, 1.0, 3.4, 0.1, 14.0, float("nan"), 2.6),
            ],
            SalienceRow,
        ),
        storage=table(
            [
                StorageRow("conv", way, size, way == "bitmask")
                for way, size in (("dense", 288), ("bitmask", 153))
            ],
            StorageRow,
        ),
        importance=table([ImportanceRow("conv", 0.1, 0.2, 3, 1)], ImportanceRow),
        masks=table([MaskRow("conv", 0, 0, 0.5)], MaskRow),
        structures=table(
            [
                StructureRow("blocks.0", "head", 0, 0.5, True),
                StructureRow("blocks.0", "head", 1, 0.25, False),
            ],
            StructureRow,
        ),
        ranks=table([RankRow("conv", 3, float("nan"), 8, 7.2, 0.5, 0.9, False)], RankRow),
        singular=table([SingularRow("conv", "plain", 1, 1.0, 0.5, True)], SingularRow),
        schedule=table(
            [ScheduleRow(10, 0.5, 0.3, "accuracy", 0.9, 1000, 0.0, "trained")], ScheduleRow
        ),
        lottery=table([LotteryRow("winning ticket", 0, 1, 0.3, 0.9)], LotteryRow),
        curves=table(
            [
                CurveRow(0, "student", "accuracy", 0.5),
                CurveRow(1, "student", "loss", 1.5),
                CurveRow(10, "qat", "loss", 0.5),
            ],
            CurveRow,
        ),
        stages=table(
            [
                StageRow(0, "", "", "size_bytes", 1000.0),
                StageRow(0, "", "test", "perplexity", 10.0),
                StageRow(1, "Rounded", "", "size_bytes", 500.0),
                StageRow(1, "Rounded", "test", "perplexity", 11.0),
            ],
            StageRow,
        ),
        written=table([WrittenRow("The", " weights")], WrittenRow),
        similarity=table([SimilarityRow("embeddings", "blocks.0", 0.5)], SimilarityRow),
        verdicts=table([VerdictRow(True, False, 3)], VerdictRow),
        mistakes=table([MistakeRow("numpy", 0.9, "<b>torch</b>", 0.8, text="a text")], MistakeRow),
        latency=table(
            [
                LatencyRow(
                    "conv", "original", "float32 products", "1 picture", 1, 2, 3.0, 2.5, 4.0, 5
                )
            ],
            LatencyRow,
        ),
    )
