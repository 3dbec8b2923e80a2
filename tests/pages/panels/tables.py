"""Small tables of the shape the engine returns, one for each panel."""

from itertools import pairwise

import numpy as np
import pandas as pd

from engine.results.analysis.per_step_scores import step_quality
from engine.results.schema.explanations import GroupRow, MapRow, OverlapRow
from engine.results.schema.query_results import PlannedRow, SoftTargetRow
from engine.results.schema.tables import (
    ChannelRow,
    CurveRow,
    HistogramRow,
    InputRow,
    LatencyRow,
    LayerRow,
    LedgerRow,
    LevelRow,
    ObserverRow,
    SearchRow,
    SimilarityRow,
    SpectrumRow,
    StageRow,
    StructureRow,
    SurfaceRow,
    VerdictRow,
    table,
)
from engine.techniques.low_rank.tables import RankRow, SingularRow, TileRow
from engine.techniques.pruning.gradual.tables import ScheduleRow
from engine.techniques.pruning.lottery_ticket.tables import LotteryRow
from engine.techniques.pruning.tables import ImportanceRow, MaskRow, RemovedRow, StorageRow
from engine.techniques.quantization.activations.tables import ReachRow
from engine.techniques.quantization.awq.tables import ScaledRow
from engine.techniques.quantization.gptq.tables import ReplayRow
from engine.techniques.quantization.llm_int8.tables import OutlierRow
from engine.techniques.quantization.mixed_precision.tables import BitsRow, SensitivityRow
from engine.techniques.quantization.salience.tables import CriterionRow, SalienceRow

NAN = float("nan")
LAYER = "model.layers.2.mlp.down_proj"


def histogram(bins: int = 40, spread: float = 0.1) -> pd.DataFrame:
    """Gaussian weights and the same rounded to a sixteenth of the range."""
    weights = np.random.default_rng(0).normal(0, spread, 5000)
    edges = np.linspace(-0.5, 0.5, bins + 1)
    step = 1 / 16
    versions = {"original": weights, "compressed": np.round(weights / step) * step}
    rows = [
        HistogramRow(LAYER, version, left, right, int(count))
        for version, values in versions.items()
        for left, right, count in zip(
            edges[:-1], edges[1:], np.histogram(values, edges)[0], strict=True
        )
    ]
    return table(rows, HistogramRow)


def levels(number: int) -> pd.DataFrame:
    return table(
        [
            LevelRow(LAYER, float(value), round(1000 * np.exp(-20 * value**2)))
            for value in np.linspace(-0.4, 0.4, number)
        ],
        LevelRow,
    )


def channels(number: int = 64, worst: int = 17) -> pd.DataFrame:
    """All alike but one, which reaches further and loses more."""
    rows = [
        ChannelRow(LAYER, i, -0.1 * (1 + (i == worst)), 0.1, 0.05 + 0.2 * (i == worst))
        for i in range(number)
    ]
    return table(rows, ChannelRow)


def layers(blocks: int = 2) -> pd.DataFrame:
    """An embedding kept, two layers a block compressed (the first block's second loses most), and a
    head tied to the embedding.
    """
    rows = [layer("model.embed", "", NAN, kind="embedding")]
    for block in range(blocks):
        name = f"model.layers.{block}"
        rows += [
            layer(f"{name}.attn.q_proj", name, 0.01 + block / 1000),
            layer(f"{name}.mlp.down_proj", name, 0.3 if block == 0 else 0.02),
        ]
    return table([*rows, layer("lm_head", "", NAN, tied_to="model.embed")], LayerRow)


def layer(
    name: str, block: str, relative_error: float, *, kind: str = "linear", tied_to: str = ""
) -> LayerRow:
    kept = relative_error != relative_error
    sizes = {
        "original_bytes": 2048,
        "size_bytes": 2048 if kept else 600,
        "bits_per_weight": 16.0 if kept else 4.7,
    }
    errors = {"relative_error": relative_error, "output_error": relative_error / 2}
    return LayerRow(
        name, kind, (32, 32), 1024, block, tied_to, "" if kept else "s1", **sizes, **errors
    )


def spectrum(rank: int = 32) -> pd.DataFrame:
    values = np.exp(-np.arange(rank) / 6)
    energy = np.cumsum(values**2) / np.sum(values**2)
    return table(
        [
            SpectrumRow(LAYER, i + 1, float(v), float(e))
            for i, (v, e) in enumerate(zip(values, energy, strict=True))
        ],
        SpectrumRow,
    )


def sensitivity() -> pd.DataFrame:
    """Three layers, each twice as sensitive as the one before; four bits are worth a quarter of
    two.
    """
    rows = [
        SensitivityRow(
            f"model.layers.{layer}.mlp",
            bits,
            "symmetric",
            "absmax",
            100 * bits,
            0.1 * 2**layer / bits**2,
            NAN if bits > 2 else 0.02,
            bits == layer + 2,
        )
        for layer in range(3)
        for bits, lost in ((2, 0.02), (3, NAN), (4, NAN))
    ]
    return table(rows, SensitivityRow)


def salience() -> pd.DataFrame:
    kept = [
        SalienceRow(by, share, 1.0, 3.2, 0.1, 14 - 40 * share * (by == "activations"), NAN, 2.6)
        for share in (0.001, 0.01, 0.03)
        for by in ("activations", "weights", "random")
    ]
    scaled = [
        SalienceRow("", 0.01, scale, 3.2, 0.1, 14 - scale / 4, NAN, 2.6, scale == 2)
        for scale in (1.0, 2.0, 4.0)
    ]
    return table(
        [SalienceRow("", 0.0, 1.0, 3.2, 0.12, 14.0, NAN, 2.64), *kept, *scaled], SalienceRow
    )


def inputs(number: int = 200, strongest: int = 17, scale: float = 4.0) -> pd.DataFrame:
    """All alike but one, which is ten times as strong, is scaled and loses less."""
    rows = [
        InputRow(
            LAYER,
            i,
            1 + 9 * (i == strongest),
            4.0,
            scale if i == strongest else 1.0,
            0.1 / (1 + (i == strongest)),
        )
        for i in range(number)
    ]
    return table(rows, InputRow)


def searches() -> pd.DataFrame:
    """Three inputs, of which the second gains most, at alpha 0.5."""
    best = {"model.layers.0.q": 0.9, "model.layers.1.q": 0.4, "model.layers.2.q": 0.8}
    rows = [
        SearchRow(
            name,
            f"{name[:14]}.norm",
            alpha,
            least + (1 - least) * (2 * alpha - 1) ** 2,
            alpha == 0.5,
        )
        for name, least in best.items()
        for alpha in (0.0, 0.25, 0.5, 0.75)
    ]
    return table(rows, SearchRow)


def surface(scaled: bool = True) -> pd.DataFrame:
    """Six blocks of tokens by four of channels; the third reaches 20 before the scales and 2
    after.
    """
    versions = {"original": 20.0, "scaled": 2.0} if scaled else {"original": 20.0}
    rows = [
        SurfaceRow(LAYER, version, 4 * token, 8 * channel, top if channel == 2 else 1.0)
        for version, top in versions.items()
        for token in range(6)
        for channel in range(4)
    ]
    return table(rows, SurfaceRow)


def ranges() -> pd.DataFrame:
    """The narrower a range, the less is lost by rounding and the more by clipping."""
    reach = {"min-max": 8.0, "moving-average": 7.0, "percentile": 4.0, "mse": 5.0, "entropy": 2.0}
    rows = [
        ObserverRow(
            LAYER,
            name,
            -wide,
            wide,
            1e-4 * wide**2,
            1e-3 * (8 - wide),
            1e-4 * (8 - wide),
            name == "percentile",
        )
        for name, wide in reach.items()
    ]
    return table(rows, ObserverRow)


def latency() -> pd.DataFrame:
    """A model and a layer that are twice as fast, and a layer without a kernel."""
    timed = [
        LatencyRow(
            what,
            version,
            kernel,
            "1 x 256 tokens",
            1,
            2,
            median,
            median * 0.9,
            median * 1.2,
            5,
            off,
        )
        for what, each in (("whole model", 40.0), (LAYER, 2.0))
        for version, kernel, median, off in (
            ("original", "float32 products", each, NAN),
            ("compressed", "oneDNN int8", each / 2, 1e-7),
        )
    ]
    none = LatencyRow(
        "lm_head",
        "compressed",
        "",
        "",
        0,
        2,
        NAN,
        NAN,
        NAN,
        0,
        note="No kernel here: it has 3 rows.",
    )
    return table([*timed, none], LatencyRow)


def ledger() -> pd.DataFrame:
    parts = [
        LedgerRow(f"layer {i}", part, size)
        for i in range(3)
        for part, size in (("codes", 5000), ("scales", 600))
    ]
    return table(
        [*parts, LedgerRow("", "norms and biases", 70), LedgerRow("", "file headers", 0)], LedgerRow
    )


def runs(quality_name: str = "perplexity") -> pd.DataFrame:
    """The original, three on the front and one beaten; "Rounding" is as large as GPTQ and worse."""
    rows = [
        ("Uncompressed", 10.4, 18.3, True),
        ("Rounding", 3.1, 19.4, False),
        ("GPTQ", 3.1, 18.9, True),
        ("GPTQ 3-bit", 2.5, 20.9, True),
        ("GPTQ 2-bit", 1.9, 30.0, True),
    ]
    return pd.DataFrame(
        {
            "run": [f"{i:04x}" for i in range(len(rows))],
            "label": [label for label, *_ in rows],
            "model": "bundled:docs-lm",
            "size_bytes": [int(size * 1e6) for _, size, *_ in rows],
            "compression": [10.4 / size for _, size, *_ in rows],
            "bits_per_parameter": [1.6 * size for _, size, *_ in rows],
            "bits_per_weight": [1.5 * size for _, size, *_ in rows],
            "quality": [
                quality if quality_name == "perplexity" else 1 / quality for *_, quality, _ in rows
            ],
            "quality_name": quality_name,
            "best": [best for *_, best in rows],
            "group": 0,
        }
    )


def with_labels(frame: pd.DataFrame, *labels: str) -> pd.DataFrame:
    return pd.concat([frame.assign(label=label) for label in labels], ignore_index=True)


def group(number: int = 32) -> pd.DataFrame:
    """Weights rounded to tenths; the fourth was asked about."""
    weights = np.random.default_rng(0).normal(0, 0.2, number)
    return table(
        [GroupRow(3, i, float(w), round(float(w), 1), i == 3) for i, w in enumerate(weights)],
        GroupRow,
    )


def weight_piece(rows: int = 6, columns: int = 8) -> pd.DataFrame:
    """Piece of a layer, from row 64 and column 128."""
    weights = np.random.default_rng(0).normal(0, 0.2, (rows, columns))
    return table(
        [
            MapRow(64 + i, 128 + j, float(w), round(float(w), 1))
            for (i, j), w in np.ndenumerate(weights)
        ],
        MapRow,
    )


def replay(rows: int = 3, places: int = 5) -> pd.DataFrame:
    """Columns in the order 4, 3, 2 ... ; those that wait move by a hundredth at each step."""
    cells = [
        ReplayRow(
            step,
            place,
            row,
            places - 1 - place,
            0.5,
            0.4 if place < step else 0.5 + step / 100,
            0.4 if place < step else 0.5,
            3.0 if place < step else NAN,
            step / 100,
            step / 50,
        )
        for step in range(places + 1)
        for row in range(rows)
        for place in range(places)
    ]
    return table(cells, ReplayRow)


def scaled_column() -> pd.DataFrame:
    return table(
        [ScaledRow(i, 7, 2.0, 0.1 * i, 0.2 * i, 0.02, -0.01) for i in range(12)], ScaledRow
    )


def reach() -> pd.DataFrame:
    return table([ReachRow(90 - i, 9.0 - i, 4.5 - i / 2, 0.1, 0.2) for i in range(8)], ReachRow)


def outliers(number: int = 2) -> pd.DataFrame:
    """The first columns reach the threshold."""
    return table(
        [OutlierRow(i, 8.0 - i * 0.5 if i < number else 2.0, 6.0, i < number) for i in range(10)],
        OutlierRow,
    )


def bits() -> pd.DataFrame:
    return table([BitsRow(b, 0.5**b, b + 0.5, b in (2, 4)) for b in range(2, 9)], BitsRow)


def criteria() -> pd.DataFrame:
    """One channel is chosen by activation, two others by weight and at random."""
    return table(
        [
            CriterionRow(i, 1.0 + (i == 5), 2.0 + (i == 9), i == 5, i == 9, i == 2)
            for i in range(20)
        ],
        CriterionRow,
    )


def pruned_layers() -> pd.DataFrame:
    """Half of each layer's weights are zero, which saves some two fifths of its bytes; the
    embedding was kept.
    """
    frame = layers()
    changed = frame.relative_error.notna()
    return frame.assign(
        sparsity=frame.relative_error.where(changed, NAN) * 0 + 0.5,
        size_bytes=(0.56 * frame.original_bytes).astype(int),
    )


def storage() -> pd.DataFrame:
    """Two layers; the smaller one cannot be written with a pattern."""
    sizes = {"dense": 1000, "bitmask": 562, "csr": 1010, "n-of-m": 562}
    rows = [
        StorageRow(name, way, size, way == "bitmask")
        for name in (LAYER, "other")
        for way, size in sizes.items()
        if name == LAYER or way != "n-of-m"
    ]
    return table(rows, StorageRow)


def importance(bins: int = 12) -> pd.DataFrame:
    """The lower half of the scores went, and one bin is shared."""
    edges = np.geomspace(1e-6, 1, bins + 1)
    rows = [
        ImportanceRow(
            LAYER,
            float(low),
            float(high),
            100 * (i >= bins // 2),
            100 * (i < bins // 2) + 20 * (i == bins // 2),
        )
        for i, (low, high) in enumerate(pairwise(edges))
    ]
    return table(rows, ImportanceRow)


def tiles(side: int = 6) -> pd.DataFrame:
    return table(
        [
            MaskRow(LAYER, 8 * i, 8 * j, (i + j) / (2 * side))
            for i in range(side)
            for j in range(side)
        ],
        MaskRow,
    )


def structures(what: str = "neuron", number: int = 60, blocks: int = 3) -> pd.DataFrame:
    """Scores rise with the number; the lower third of the first block goes, and a sixth of each
    other.
    """
    rows = [
        StructureRow(
            f"model.layers.{block}",
            what,
            index,
            0.1 + index / number,
            index >= number // (3 if block == 0 else 6),
        )
        for block in range(blocks)
        for index in range(number)
    ]
    return table(rows, StructureRow)


def influences() -> pd.DataFrame:
    """Influence of four blocks; the second one has the least."""
    return table(
        [
            StructureRow(f"model.layers.{i}", "block", i, score, i != 1)
            for i, score in enumerate((1.0, 0.1, 0.15, 0.2))
        ],
        StructureRow,
    )


def overlap() -> pd.DataFrame:
    methods = ("Magnitude pruning (L1)", "Wanda", "Random pruning")
    shares = {("Magnitude pruning (L1)", "Wanda"): 0.8}
    rows = [
        OverlapRow(a, b, 1.0 if a == b else shares.get((a, b)) or shares.get((b, a)) or 0.33)
        for a in methods
        for b in methods
    ]
    return table(rows, OverlapRow)


def removed_weights(number: int = 40) -> pd.DataFrame:
    weights = np.random.default_rng(0).normal(0, 0.2, number)
    rows = [
        RemovedRow(3, i, float(w), abs(float(w)), float(w) * (abs(w) > 0.1), bool(abs(w) > 0.1))
        for i, w in enumerate(weights)
    ]
    return table(rows, RemovedRow)


def ranks() -> pd.DataFrame:
    """A layer kept as it was, one below its break-even rank and one beyond, and a convolution in
    three.
    """
    rows = [
        RankRow("model.layers.0.q", 32, NAN, 32, 16.0, 1.0, 1.0, True),
        RankRow(LAYER, 8, NAN, 32, 16.0, 0.5, 0.9, False),
        RankRow("model.layers.3.mlp.down_proj", 20, NAN, 32, 16.0, 1.25, 0.99, False),
        RankRow("conv", 12, 7.0, 20, NAN, 0.4, 0.8, False),
    ]
    return table(rows, RankRow)


def singular(rank: int = 6, number: int = 24) -> pd.DataFrame:
    """Strengths that fall faster once data weighs them."""
    rows = []
    for version, decay in (("plain", 12), ("whitened", 4)):
        values = np.exp(-np.arange(number) / decay)
        energy = np.cumsum(values**2) / np.sum(values**2)
        rows += [
            SingularRow(LAYER, version, i + 1, float(v), float(e), i < rank)
            for i, (v, e) in enumerate(zip(values, energy, strict=True))
        ]
    return table(rows, SingularRow)


def planned_ranks() -> pd.DataFrame:
    """The first layer stays whole, the second loses most."""
    rows = [
        PlannedRow("model.layers.0.q", 32, 32, 16.0, True, 2048, 2048, 0.0),
        PlannedRow("model.layers.0.k", 4, 32, 16.0, False, 2048, 512, 0.4),
        PlannedRow(LAYER, 12, 32, 16.0, False, 2048, 1536, 0.1),
    ]
    return table(rows, PlannedRow)


def matrix_tiles(side: int = 6) -> pd.DataFrame:
    """A matrix of one direction and some noise; the direction alone is rebuilt."""
    line = np.sin(np.arange(side))
    rebuilt = np.outer(line, line)
    original = rebuilt + np.random.default_rng(0).normal(0, 0.1, (side, side))
    versions = {"original": original, "rebuilt": rebuilt, "missing": rebuilt - original}
    return table(
        [
            TileRow(v, 4 * i, 8 * j, float(x))
            for v, matrix in versions.items()
            for (i, j), x in np.ndenumerate(matrix)
        ],
        TileRow,
    )


def schedule(quality_name: str = "accuracy") -> pd.DataFrame:
    """Three cuts, each of which costs a fifth, and training that wins nine tenths of it back."""
    rows = [ScheduleRow(0, 0.0, NAN, quality_name, 0.98, 700_000, 0.0, "before")]
    for cut, share in enumerate((0.5, 0.7, 0.8)):
        size = int(700_000 * (1 - share))
        rows.append(ScheduleRow(10 * cut, share, NAN, quality_name, 0.78, size, 0.01 * cut, "cut"))
        rows.append(
            ScheduleRow(10 * cut + 10, share, 0.4, quality_name, 0.96, size, 0.01 * cut, "trained")
        )
    return table(rows, ScheduleRow)


def schedule_live() -> pd.DataFrame:
    """CurveRow of the schedule, as a running step reports them."""
    rows = schedule().itertuples(index=False)
    values = (
        (row.step, name, value)
        for row in rows
        for name, value in (("zero", row.sparsity), (row.quality_name, row.quality))
    )
    return table((CurveRow(step, "gradual", name, value) for step, name, value in values), CurveRow)


def lottery() -> pd.DataFrame:
    """Two seeds, two rounds: tickets stay, twins fall."""
    fall = {"winning ticket": 0.01, "other first weights": 0.1, "random mask": 0.2}
    rows = [LotteryRow("dense", seed, 0, 1.0, 0.95 + 0.01 * seed) for seed in range(2)]
    rows += [
        LotteryRow(variant, seed, number, 0.3**number, 0.95 - each * number + 0.01 * seed)
        for seed in range(2)
        for number in (1, 2)
        for variant, each in fall.items()
    ]
    return table(rows, LotteryRow)


def curves(quality_name: str = "accuracy", steps: int = 40, phase: str = "student") -> pd.DataFrame:
    """A loss of two terms that falls, and a quality that rises until the last look, before which it
    was best.
    """
    rows = [CurveRow(0, phase, quality_name, 0.2)]
    for step in range(1, steps + 1):
        terms = {
            "loss": 2.0 / step,
            "labels": 1.5 / step,
            "teacher": 2.5 / step,
            "rate": 1e-3 * (1 - step / steps),
            "examples per second": 900.0,
        }
        rows += [CurveRow(step, phase, name, value) for name, value in terms.items()]
        if step % 10 == 0:
            rows.append(
                CurveRow(step, phase, quality_name, 0.9 * step / steps - 0.3 * (step == steps))
            )
    return table(rows, CurveRow)


def precisions() -> pd.DataFrame:
    """Three trainings: float16 loses a tenth of its gradients, and is the slowest."""
    facts = {"float32": (None, 400.0), "bfloat16": (0.0, 500.0), "float16": (0.1, 100.0)}
    rows = []
    for phase, (lost, pace) in facts.items():
        for step in (10, 20):
            values = {"loss": 3.0 / step, "accuracy": 0.9, "examples per second": pace} | (
                {} if lost is None else {"slopes lost": lost}
            )
            rows += [CurveRow(step, phase, name, value) for name, value in values.items()]
    return table(rows, CurveRow)


def soft_targets(temperature: float = 2.0) -> pd.DataFrame:
    """Three answers of a teacher who is rather sure, and wrong."""
    plain = np.array([0.7, 0.2, 0.1])
    softened = plain ** (1 / temperature) / (plain ** (1 / temperature)).sum()
    pairs = zip(
        ("numpy", "a <b>very</b> long name of a class", "torch"), plain, softened, strict=True
    )
    return table(
        [
            SoftTargetRow(name, float(p), float(q), temperature, number == 1)
            for number, (name, p, q) in enumerate(pairs)
        ],
        SoftTargetRow,
    )


def stages(*splits: str, quality: str = "accuracy") -> pd.DataFrame:
    """The original, a pruning that takes a quarter off, a step that adds a little, and one that
    halves what is left.
    """
    sizes, qualities = (
        (8e6, 6e6, 6.3e6, 3.15e6),
        {"accuracy": (0.9, 0.8, 0.88, 0.87), "perplexity": (12.0, 18.0, 13.0, 13.5)}[quality],
    )
    labels, rows = (
        ("", "Magnitude pruning (L1) 50%", "LoRA rank 8", "<b>GPTQ</b> 4-bit, groups of 32"),
        [],
    )
    for step, (label, size, value) in enumerate(zip(labels, sizes, qualities, strict=True)):
        rows += [
            StageRow(step, label, "", name, number)
            for name, number in (
                ("size_bytes", size),
                ("parameters", 2e6),
                ("bits_per_weight", 4.5),
            )
        ]
        rows += [
            StageRow(step, label, split, quality, value - 0.01 * place)
            for place, split in enumerate(splits or ("test",))
        ]
        rows += [
            StageRow(step, label, split, "agreement", 0.95) for split in splits or ("test",) if step
        ]
    return table(rows, StageRow)


def steps(*splits: str, quality: str = "accuracy") -> pd.DataFrame:
    return step_quality(stages(*splits, quality=quality))


def similarity(blocks: int = 4) -> pd.DataFrame:
    """A student of every other block of its teacher's, each of which is most like the one that it
    was.
    """
    student_blocks, teacher_blocks = (
        ["embeddings", *(f"model.layers.{number}" for number in range(count))]
        for count in (blocks // 2, blocks)
    )
    return table(
        [
            SimilarityRow(one, other, 1 - 0.1 * abs(2 * i - j))
            for i, one in enumerate(student_blocks)
            for j, other in enumerate(teacher_blocks)
        ],
        SimilarityRow,
    )


def verdicts() -> pd.DataFrame:
    """Agreement on a hundred examples."""
    return table(
        [
            VerdictRow(True, True, 70),
            VerdictRow(True, False, 15),
            VerdictRow(False, True, 5),
            VerdictRow(False, False, 10),
        ],
        VerdictRow,
    )
