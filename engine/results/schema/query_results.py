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
    """A model as it is."""

    reference: str
    revision: str
    architecture: str
    kind: str  # of its task
    parameters: int
    size_bytes: int
    bits_per_weight: float  # of its compressed layers, or of all layers if none is
    bits_per_parameter: float  # 8 x size_bytes / parameters of the original model
    layers: pd.DataFrame  # LayerRow, nothing compressed
    notes: tuple[str, ...] = ()
    compressed: bool = False  # by this engine
    longest: int | None = None  # tokens that it can see at once, where there is a limit


@dataclass(frozen=True)
class LayerView:
    """One layer as it is."""

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
    milliseconds: float  # spent computing
    weights: int  # judged; fewer than the layer has where only part of its rows was


@dataclass(frozen=True)
class InputRanges:
    """Inputs of one layer, and the range that each observer would choose for them."""

    histogram: pd.DataFrame  # HistogramRow of a sample of the inputs, as the layer gets them
    observers: pd.DataFrame  # ObserverRow
    examples: int  # calibration examples that were used


@dataclass(frozen=True)
class PlannedRow:
    """One layer under a budget of ranks."""

    layer: str
    rank: int
    full_rank: int
    break_even: float  # rank at which factors take as many parameters as the weight
    whole: bool  # kept as it is
    original_bytes: int
    size_bytes: int
    predicted_error: (
        # of the layer's output on a few calibration inputs where errors are weighed by how inputs
        # go together; else of the weights
        float
    )


@dataclass(frozen=True)
class PlannedRanks:
    """Every layer that data can be seen of."""

    ranks: pd.DataFrame  # PlannedRow
    parameters: int  # of these layers
    kept_parameters: int
    milliseconds: float  # spent computing


@dataclass(frozen=True)
class Forecast:
    """Expected size, time and memory of a run."""

    # of the files to be written; exact unless weights are so small or large that scales need
    # float32
    size_bytes: int
    bits_per_weight: float  # of the layers that will be compressed
    bits_per_parameter: float  # 8 x size_bytes / parameters of the original model
    compression: float
    seconds: float  # within a factor of two, as memory
    peak_rss_bytes: float  # most main memory of the working process at once
    layers: int  # to be compressed
    at_least: bool = False  # whether data may add to the size
    at_most: bool = False  # whether the weights may take from it, by being coded shorter
    notes: tuple[str, ...] = ()  # assumptions about the data and shortfalls, one sentence each


@dataclass(frozen=True)
class SoftTargetRow:
    """One answer that a teacher might give to one example."""

    answer: str  # a class, or a token
    plain: float  # probability at temperature 1
    softened: float  # at the temperature asked for
    temperature: float
    right: bool  # whether the data says so


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's predictions for one example."""

    answers: pd.DataFrame  # SoftTargetRow, the likeliest first
    example: str  # the text, or what the picture is
