"""Rows of the tables that a run of any technique may have, and of those that answer live questions.
A row class is a table's schema.

Missing is NaN (numbers) or absent, never -1 or 0.
"""

from dataclasses import dataclass
from typing import Literal

from engine.results.schema.declaration import NAN, ResultView, explanation_row, run_table
from engine.results.schema.declaration import table as table


@run_table("layers", required=True)
@dataclass(frozen=True)
class LayerRow:
    """One compressible layer before and after a run."""

    name: str
    kind: Literal["linear", "conv1d", "convolution1d", "conv2d", "embedding"]
    # output channels first: (out, in_) or (out, in_, height, width); embeddings (entries, width)
    shape: tuple[int, ...]
    parameters: int
    block: str  # name of the block that contains the layer, "" outside of blocks
    tied_to: str  # another layer that shares the tensor, where it is counted, or ""
    technique: str  # id of the step that compressed it, "" if it is unchanged
    original_bytes: int
    size_bytes: int  # stored: codes, scales, zero points ... as in the file
    bits_per_weight: float  # 8 x size_bytes / the layer's parameters in the original model
    relative_error: float  # |W - W^| / |W|, NaN if unchanged
    output_error: float = NAN  # |XW - XW^| / |XW| on calibration inputs of the uncompressed model
    sqnr_db: float = NAN  # 10 log10(|W|^2 / |W - W^|^2)
    largest_error: float = NAN  # max |w - w^|
    sparsity: float = NAN  # share of zero weights; NaN if unchanged
    note: str = ""  # remark on its compression
    # before whole rows or columns were removed; () if the shape is unchanged
    original_shape: tuple[int, ...] = ()


@run_table("channels", required=True)
@dataclass(frozen=True)
class ChannelRow:
    """One output channel of one layer."""

    layer: str
    channel: int
    minimum: float  # of the original weights
    maximum: float
    relative_error: float


CHANNELS_VIEW = ResultView("Channels", ChannelRow, ("CHANNEL_ERROR",), position=110, per_layer=True)


@run_table("histograms", required=True)
@dataclass(frozen=True)
class HistogramRow:
    """One bin of a layer's weights, original or compressed; bins are shared by both."""

    layer: str
    version: Literal["original", "compressed"]
    left: float
    right: float
    count: int


@run_table("levels", required=True)
@dataclass(frozen=True)
class LevelRow:
    """One level of a layer's weights, at the median scale."""

    layer: str
    value: float
    # number of the layer's weights with this code at any scale; NaN if that is not
    # counted
    weights: float = NAN


@dataclass(frozen=True)
class SpectrumRow:
    """One singular value of a layer's weight matrix."""

    layer: str
    index: int  # from 1
    singular_value: float
    cumulative_energy: float  # cumulative share of the sum of squares, 0 to 1


@run_table("ledger", required=True)
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


@run_table("samples", required=True)
@dataclass(frozen=True)
class SampleRow:
    """One prompt continued by both models, or one example classified by both."""

    prompt: str
    original: str
    compressed: str


@run_table("searches", required=True)
@dataclass(frozen=True)
class SearchRow:
    """One scaling strength that was tried for layers with a common input."""

    layer: str  # the first of these layers
    source: str  # the module that is scaled
    alpha: float
    error: float  # squared error of the outputs relative to that of alpha 0
    chosen: bool


@run_table("inputs", required=True)
@dataclass(frozen=True)
class InputRow:
    """One input channel of one layer, on calibration data."""

    layer: str
    channel: int
    magnitude: float  # mean of |x|
    largest: float  # max of |x|
    scale: float  # factor of its weights before rounding; 1 without one
    weight_error: float  # |w - w^| / |w| of the channel's weights


@run_table("surfaces")
@dataclass(frozen=True)
class SurfaceRow:
    """One block of a layer's inputs: neighboring vectors (tokens) by neighboring channels."""

    layer: str  # the first of the layers that share the input
    # before and after scales
    version: Literal["original", "scaled"]
    vector: int  # first vector of the block, among the sampled ones
    channel: int  # first channel of the block
    largest: float  # max |x| in the block


@dataclass(frozen=True)
class ObserverRow:
    """Range of a layer's inputs by one observer, and the resulting errors."""

    layer: str
    observer: str
    low: float  # smallest representable value
    high: float
    # of values inside the range: sum of squared errors over the sum of squares of all values
    rounding_error: float
    clipping_error: float  # the same for values outside; both add up to the total error
    clipped: float  # share of the values outside the range
    chosen: bool  # True for the recipe's observer


@explanation_row(panel="STRUCTURE_SCORES")
@run_table("structures")
@dataclass(frozen=True)
class StructureRow:
    """One neuron, head, channel or block with its importance."""

    block: str  # location: a block of the model, or a convolution
    what: Literal["neuron", "head", "key/value group", "channel", "block"]
    index: int  # number within the block; for blocks, within the model
    score: float  # importance
    kept: bool


@run_table("curves")
@dataclass(frozen=True)
class CurveRow:
    """One value at one step of a training: a loss term, the learning rate, or a quality on held-out
    examples.
    """

    step: int  # counted from 1; 0 is before the first
    phase: str  # trained network: "student", "teacher", "qat", "adapter" ...
    # "loss", "labels", "teacher", "features", "rate", "accuracy", "perplexity", "examples per
    # second" ...
    name: str
    value: float


@run_table("stages")
@dataclass(frozen=True)
class StageRow:
    """One metric of the model after one step of the recipe, reloaded from the written files."""

    step: int  # 0: the original
    technique: str  # label of the step, e.g. "Distilled to 50% blocks"; "" for the original
    split: str  # "test", "validation", ...; "" for metrics of no split (size)
    # "size_bytes", "parameters", "bits_per_weight", "perplexity", "accuracy", "precision",
    # "recall", "f1" (macro averages) ...
    measure: str
    value: float


@run_table("similarity")
@dataclass(frozen=True)
class SimilarityRow:
    """Similarity of the states after a student's block and a teacher's block, on calibration
    inputs.
    """

    student: str  # name of a block, or "embeddings" for the input of the first block
    teacher: str
    # linear CKA: 1 for states that are equal up to rotation and scale, about 0 for unrelated ones
    similarity: float


SIMILARITY_VIEW = ResultView("Similarity", SimilarityRow, ("BLOCK_SIMILARITY",), position=50)


@run_table("verdicts")
@dataclass(frozen=True)
class VerdictRow:
    """Number of evaluation examples (or next tokens) that the teacher and the student predicted
    correctly.
    """

    teacher: bool
    student: bool
    count: int


@run_table("mistakes")
@dataclass(frozen=True)
class MistakeRow:
    """An example or next token that the teacher predicted correctly and the student did not,
    highest confidence of the student first.
    """

    label: str  # the correct answer, which the teacher predicted
    teacher: float  # probability that the teacher assigned to it
    answer: str  # the student's answer
    student: float  # probability that the student assigned to it
    text: str = ""  # of the example, or before the token
    picture: str = ""  # a data: URL for images


@run_table("latency")
@dataclass(frozen=True)
class LatencyRow:
    """Duration of one forward pass in one version, or the reason why no kernel could be timed."""

    # "whole model", a layer that represents all of its shape, or the number of layers with a reason
    what: str
    version: Literal["original", "compressed"]
    kernel: str  # name of the kernel; "" without one
    shape: str  # of the inputs: "1 x 256 tokens", "64 pictures"
    batch: int  # examples
    threads: int
    median_ms: float  # NaN without a kernel, like all numbers
    low_ms: float  # quartiles
    high_ms: float
    repeats: int
    # |y - y^| / |y|: the kernel's outputs compared with those of the run
    difference: float = NAN
    note: str = ""
