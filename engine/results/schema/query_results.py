"""Answers to live questions: views of a model and of a layer, and the effect of a setting on it."""

from dataclasses import dataclass

import pandas as pd

from engine.results.schema.tables import LayerRow


@dataclass(frozen=True)
class WorkerFacts:
    """Device and process of a worker."""

    device: str  # name of the GPU, or "cpu"
    cuda: bool
    threads: int
    pid: int


@dataclass(frozen=True)
class ModelView:
    """An uncompressed model."""

    reference: str
    revision: str
    architecture: str
    kind: str  # of its task
    parameters: int
    size_bytes: int
    bits_per_weight: float  # of its compressed layers, or of all layers if there are none
    bits_per_parameter: float  # 8 x size_bytes / parameters of the original model
    layers: pd.DataFrame  # LayerRow, uncompressed
    notes: tuple[str, ...] = ()
    compressed: bool = False  # by this engine
    longest: int | None = None  # maximum number of tokens, if limited


@dataclass(frozen=True)
class LayerView:
    """An uncompressed layer."""

    histogram: pd.DataFrame  # HistogramRow, original only
    channels: pd.DataFrame  # ChannelRow
    spectrum: pd.DataFrame  # SpectrumRow


@dataclass(frozen=True)
class LayerPreview:
    """One layer under a setting."""

    row: LayerRow
    histogram: pd.DataFrame  # HistogramRow
    levels: pd.DataFrame  # LevelRow
    channels: pd.DataFrame  # ChannelRow
    milliseconds: float  # milliseconds of computation
    weights: int  # weights compared; fewer than the layer has if only its first rows were


@dataclass(frozen=True)
class InputRanges:
    """Inputs of one layer, and the range that each observer would choose for them."""

    histogram: pd.DataFrame  # HistogramRow of a sample of the layer's inputs
    observers: pd.DataFrame  # ObserverRow
    examples: int  # number of calibration examples


@dataclass(frozen=True)
class PlannedRow:
    """One layer under a budget of ranks."""

    layer: str
    rank: int
    full_rank: int
    break_even: float  # rank at which factors take as many parameters as the weight
    whole: bool  # True if it is not factorized
    original_bytes: int
    size_bytes: int
    predicted_error: (
        # of the layer's output on a few calibration inputs where errors are weighed by how inputs
        # go together; else of the weights
        float
    )


@dataclass(frozen=True)
class PlannedRanks:
    """All layers whose inputs can be observed."""

    ranks: pd.DataFrame  # PlannedRow
    parameters: int  # of these layers
    kept_parameters: int
    milliseconds: float  # milliseconds of computation


@dataclass(frozen=True)
class Forecast:
    """Expected size, time and memory of a run."""

    # of the files to be written; exact unless weights are so small or large that scales need
    # float32
    size_bytes: int
    bits_per_weight: float  # of the layers that will be compressed
    bits_per_parameter: float  # 8 x size_bytes / parameters of the original model
    compression: float
    seconds: float  # within a factor of two, like the memory
    peak_rss_bytes: float  # peak main memory of the worker
    layers: int  # number of layers to compress
    at_least: bool = False  # True if the data may increase the size
    at_most: bool = False  # True if the size may be lower, by variable-length codes
    notes: tuple[str, ...] = ()  # assumptions about the data and shortfalls, one sentence each


@dataclass(frozen=True)
class SoftTargetRow:
    """One possible answer of a teacher to one example."""

    answer: str  # a class, or a token
    plain: float  # probability at temperature 1
    softened: float  # at the requested temperature
    temperature: float
    right: bool  # True for the correct answer according to the data


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's predictions for one example."""

    answers: pd.DataFrame  # SoftTargetRow, most likely first
    example: str  # the text, or a description of the image
