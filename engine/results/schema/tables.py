"""Typed tables of a run's results. A row class is a table's schema.

Missing is NaN (numbers) or absent, never -1 or 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Literal

import pandas as pd

NAN = float("nan")


@dataclass(frozen=True)
class LayerRow:
    """One compressible layer and what became of it."""

    name: str
    kind: Literal["linear", "conv1d", "convolution1d", "conv2d", "embedding"]
    # output channels first: (out, in_) or (out, in_, height, width); embeddings (entries, width)
    shape: tuple[int, ...]
    parameters: int
    block: str  # name of the block the layer stands in, "" outside all blocks
    tied_to: str  # another layer that shares the tensor and is counted there, or ""
    technique: str  # id of the step that compressed it, "" when kept as it was
    original_bytes: int
    size_bytes: int  # stored: codes, scales, zero points ... as in the file
    bits_per_weight: float  # 8 x size_bytes / the layer's parameters in the original model
    relative_error: float  # |W - W^| / |W|, NaN where kept
    output_error: float = NAN  # |XW - XW^| / |XW| on calibration inputs of the uncompressed model
    sqnr_db: float = NAN  # 10 log10(|W|^2 / |W - W^|^2)
    largest_error: float = NAN  # max |w - w^|
    sparsity: float = NAN  # share of the weights that are zero now; NaN where kept
    note: str = ""  # what the user should know about its compression
    # before whole rows or columns were taken out; () where the shape stayed
    original_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChannelRow:
    """One output channel of one layer."""

    layer: str
    channel: int
    minimum: float  # of the original weights
    maximum: float
    relative_error: float


@dataclass(frozen=True)
class HistogramRow:
    """One bin of a layer's weights, original or compressed; bins are shared by both."""

    layer: str
    version: Literal["original", "compressed"]
    left: float
    right: float
    count: int


@dataclass(frozen=True)
class LevelRow:
    """One value a weight may take, in the group of weights whose scale is the median."""

    layer: str
    value: float
    # how many of the layer's weights have this code, whatever their scale; NaN where that is not
    # counted
    weights: float = NAN


@dataclass(frozen=True)
class SpectrumRow:
    """One singular value of a layer's weight matrix."""

    layer: str
    index: int  # from 1
    singular_value: float
    cumulative_energy: float  # share of the sum of squares up to here, 0 to 1


@dataclass(frozen=True)
class LedgerRow:
    """Bytes of one kind in one layer's (or the rest's) storage; all rows add up to the files
    written.
    """

    layer: str  # "" for what belongs to no layer: norms, biases, file headers
    # "codes", "scales", "zero points", "absmax", "dense weights", "norms and biases", "file
    # headers" ...
    part: str
    size_bytes: int


@dataclass(frozen=True)
class SampleRow:
    """One prompt continued by both models, or one example classified by both."""

    prompt: str
    original: str
    compressed: str


@dataclass(frozen=True)
class SearchRow:
    """One strength of scaling that was tried for the layers that share an input."""

    layer: str  # the first of them
    source: str  # what takes the scales
    alpha: float
    error: float  # squared error of the outputs relative to that of alpha 0
    chosen: bool


@dataclass(frozen=True)
class InputRow:
    """One input channel of one layer, on calibration data."""

    layer: str
    channel: int
    magnitude: float  # mean of |x|
    largest: float  # max of |x|
    scale: float  # what its weights were multiplied by before rounding; 1 where they were not
    weight_error: float  # |w - w^| / |w| of the channel's weights


@dataclass(frozen=True)
class SurfaceRow:
    """One block of a layer's inputs: neighboring vectors (tokens) by neighboring channels."""

    layer: str  # the first of those that share the input
    # before and after the scales that a technique folds away
    version: Literal["original", "scaled"]
    vector: int  # the block's first, numbered among those that were sampled
    channel: int  # the block's first
    largest: float  # max |x| in the block


@dataclass(frozen=True)
class ObserverRow:
    """The range of a layer's inputs that one observer chooses, and what rounding to it costs."""

    layer: str
    observer: str
    low: float  # least value that a code stands for
    high: float
    # of values inside the range: sum of squared errors over the sum of squares of all values
    rounding_error: float
    clipping_error: float  # of values outside, likewise; both add up to the whole
    clipped: float  # share of the values that lie outside
    chosen: bool  # by the recipe


@dataclass(frozen=True)
class SensitivityRow:
    """One setting that a layer might get in mixed precision."""

    layer: str
    bits: int
    scheme: str
    range: str
    size_bytes: int
    # KL divergence of the model's answers when this layer alone is rounded so, nats
    quantize_one: float
    # what it adds when all others are rounded to the fewest bits, nats; either is NaN where not
    # measured
    restore_one: float
    chosen: bool


@dataclass(frozen=True)
class SalienceRow:
    """One variant of the experiment on salient weights, measured at the recipe's task."""

    # how the channels kept in 16 bits were chosen; "" where none was
    kept_by: Literal["", "activations", "weights", "random"]
    share: float  # of the input channels, kept or scaled
    scale: float
    bits_per_weight: float
    # |XW - XW^| / |XW| over all layers, on calibration inputs of the uncompressed model
    output_error: float
    perplexity: float
    accuracy: float
    loss: float
    chosen: bool = False  # whether it is the result

    def marked(self, chosen: bool) -> "SalienceRow":
        return replace(self, chosen=chosen)


@dataclass(frozen=True)
class StorageRow:
    """Size of one pruned layer in one storage format."""

    layer: str
    way: Literal["dense", "bitmask", "csr", "n-of-m"]
    size_bytes: int
    chosen: bool


@dataclass(frozen=True)
class ImportanceRow:
    """One bin of a pruned layer's scores. Bins are even in the logarithm."""

    layer: str
    left: float  # of the score; the lowest bin holds every lower score too
    right: float
    stays: int  # weights
    goes: int


@dataclass(frozen=True)
class MaskRow:
    """One tile of a pruned layer: neighboring output by neighboring input channels."""

    layer: str
    row: int  # the tile's first
    column: int
    left: float  # share of its weights that are not zero


@dataclass(frozen=True)
class StructureRow:
    """One neuron, head, channel or block that might be taken out whole."""

    block: str  # where it stands: a block of the model, or a convolution
    what: Literal["neuron", "head", "key/value group", "channel", "block"]
    index: int  # among those of the block; of blocks, in the model
    score: float  # how much it matters
    kept: bool


@dataclass(frozen=True)
class RankRow:
    """Rank of one factorized layer."""

    layer: str
    rank: int  # of a convolution in three: along outputs
    input_rank: float  # of a convolution in three: along inputs; NaN for others
    full_rank: int  # at which nothing would be lost
    # rank at which factors take as many parameters as the weight; NaN where two ranks say that
    # together
    break_even: float
    kept_parameters: float  # share; of a correction, what it adds
    # share of the squared singular values, whitened where the technique does that; of a correction,
    # of the rounding error's
    kept_energy: float
    whole: bool  # kept as it was


@dataclass(frozen=True)
class SingularRow:
    """One singular value of a layer that was factorized, of the matrix in one version. Of many,
    some evenly spaced ones.
    """

    layer: str
    version: Literal["plain", "whitened", "randomized"]
    index: int  # from 1
    singular_value: float  # relative to the largest of its version: 0 to 1
    cumulative_energy: float  # share of the sum of squares up to here
    kept: bool  # whether the technique keeps it


@dataclass(frozen=True)
class CurveRow:
    """One value at one step of a training: a term of the loss, the learning rate, or a quality on
    held-out examples.
    """

    step: int  # from 1; 0 is before the first
    phase: str  # whose training: "student", "teacher", "qat", "adapter" ...
    # "loss", "labels", "teacher", "features", "rate", "accuracy", "perplexity", "examples per
    # second" ...
    name: str
    value: float


@dataclass(frozen=True)
class ScheduleRow:
    """One moment of pruning with training in between."""

    step: int  # training steps done
    sparsity: float  # share of the weights of all layers treated that are zero
    train_loss: float  # mean since the row before, nats; NaN where nothing was trained
    quality_name: Literal["accuracy", "perplexity"]
    quality: float  # on examples held out from training, which are not those of the result
    size_bytes: int  # of the model's files, were they written now
    regrown: float  # of the weights left, the share that had been cut before the last cut
    event: Literal["before", "cut", "size reached", "trained", "below the floor", "went back"]


@dataclass(frozen=True)
class LotteryRow:
    """One network of the experiment on lottery tickets, after it was trained."""

    variant: Literal["dense", "winning ticket", "other first weights", "random mask"]
    seed: int
    round: int  # 0 of the dense network
    left: float  # share of the weights
    accuracy: float  # on examples held out from training


@dataclass(frozen=True)
class WrittenRow:
    """Text or label from a black-box teacher for its student."""

    # from the training text; of a classifier the text itself, or the number of a picture
    prompt: str
    continuation: str  # the teacher's; of a classifier the label it chose


@dataclass(frozen=True)
class StageRow:
    """One measure of the model as it was after one step of the recipe, read back from the file
    written.
    """

    step: int  # 0: the original
    technique: str  # label of the step, e.g. "Distilled to 50% blocks"; "" for the original
    split: str  # "test", "validation", ...; "" for what belongs to none (size)
    # "size_bytes", "parameters", "bits_per_weight", "perplexity", "accuracy", "precision",
    # "recall", "f1" (macro averages) ...
    measure: str
    value: float


@dataclass(frozen=True)
class SimilarityRow:
    """Similarity of the states after a student's block and a teacher's block, on calibration
    inputs.
    """

    student: str  # a block's name, or "embeddings": what flows into the first block
    teacher: str
    # linear CKA: 1 for states that are equal but for a turn and a scale, about 0 for unrelated ones
    similarity: float


@dataclass(frozen=True)
class VerdictRow:
    """Number of evaluation examples (or next tokens) that the teacher and the student predicted
    correctly.
    """

    teacher: bool
    student: bool
    count: int


@dataclass(frozen=True)
class MistakeRow:
    """An example, or a next token, that the teacher got right and its student did not; those of
    which the student was surest come first.
    """

    label: str  # the right answer, which the teacher gave
    teacher: float  # how probable it took that to be
    answer: str  # the student's
    student: float  # how probable it took that to be
    text: str = ""  # of the example, or before the token
    picture: str = ""  # a data: address, where the example is one


@dataclass(frozen=True)
class LatencyRow:
    """Duration of one forward pass in one version, or the reason why no kernel could be timed."""

    # "whole model", a layer that stands for all of its shape, or how many layers a reason holds for
    what: str
    version: Literal["original", "compressed"]
    kernel: str  # what multiplied; "" where nothing here multiplies the weights as they are stored
    shape: str  # of what went in: "1 x 256 tokens", "64 pictures"
    batch: int  # examples
    threads: int
    median_ms: float  # NaN without a kernel, as all numbers
    low_ms: float  # quartiles
    high_ms: float
    repeats: int
    # |y - y^| / |y|: the kernel's outputs compared with those that the run measured
    difference: float = NAN
    note: str = ""


@dataclass(frozen=True)
class Tables:
    """Every table of a run. Each has its row class's columns, also when it is empty."""

    layers: pd.DataFrame
    channels: pd.DataFrame
    histograms: pd.DataFrame
    levels: pd.DataFrame
    ledger: pd.DataFrame
    samples: pd.DataFrame
    searches: pd.DataFrame
    inputs: pd.DataFrame
    surfaces: pd.DataFrame
    sensitivity: pd.DataFrame
    salience: pd.DataFrame
    latency: pd.DataFrame
    storage: pd.DataFrame
    importance: pd.DataFrame
    masks: pd.DataFrame
    structures: pd.DataFrame
    ranks: pd.DataFrame
    singular: pd.DataFrame
    schedule: pd.DataFrame
    lottery: pd.DataFrame
    curves: pd.DataFrame
    written: pd.DataFrame
    stages: pd.DataFrame
    similarity: pd.DataFrame
    verdicts: pd.DataFrame
    mistakes: pd.DataFrame

    @classmethod
    def empty(cls) -> "Tables":
        return cls(**{name: empty_table(row) for name, row in ROWS.items()})


ROWS = {
    "layers": LayerRow,
    "channels": ChannelRow,
    "histograms": HistogramRow,
    "levels": LevelRow,
    "ledger": LedgerRow,
    "samples": SampleRow,
    "searches": SearchRow,
    "inputs": InputRow,
    "surfaces": SurfaceRow,
    "sensitivity": SensitivityRow,
    "salience": SalienceRow,
    "latency": LatencyRow,
    "storage": StorageRow,
    "importance": ImportanceRow,
    "masks": MaskRow,
    "structures": StructureRow,
    "ranks": RankRow,
    "singular": SingularRow,
    "schedule": ScheduleRow,
    "lottery": LotteryRow,
    "curves": CurveRow,
    "written": WrittenRow,
    "stages": StageRow,
    "similarity": SimilarityRow,
    "verdicts": VerdictRow,
    "mistakes": MistakeRow,
}


def empty_table(row: type) -> pd.DataFrame:
    """Return an empty table. It is a copy of a cached one, because creating dozens of columns is
    slow.
    """
    return no_rows(row).copy()


@cache
def no_rows(row: type) -> pd.DataFrame:
    return table((), row)


def table(rows: Iterable[object], row: type) -> pd.DataFrame:
    """Rows as a frame with the row class's columns, in their order."""
    names = [field.name for field in fields(row)]
    return pd.DataFrame([[getattr(each, name) for name in names] for each in rows], columns=names)
