"""The figures: each takes one table and answers one question. README.md is the map."""

from pages.panels.explain.gptq_replay import GPTQ_REPLAY
from pages.panels.explain.gradual_pruning_preview import GRADUAL_PRUNING_PREVIEW
from pages.panels.explain.lottery_preview import LOTTERY_PREVIEW
from pages.panels.explain.scaled_column import SCALED_COLUMN
from pages.panels.layers.activation_surface import ACTIVATION_SURFACE
from pages.panels.layers.alpha_search import ALPHA_SEARCH
from pages.panels.layers.bits_per_layer import BITS_PER_LAYER
from pages.panels.layers.channel_error import CHANNEL_ERROR
from pages.panels.layers.channel_ranges import CHANNEL_RANGES
from pages.panels.layers.channel_selection import CHANNEL_SELECTION
from pages.panels.layers.cumulative_energy import CUMULATIVE_ENERGY
from pages.panels.layers.input_reach import INPUT_RANGES
from pages.panels.layers.layer_error import LAYER_ERROR
from pages.panels.layers.layer_error_side_by_side import LAYER_ERROR_SIDE_BY_SIDE
from pages.panels.layers.observers import OBSERVERS
from pages.panels.layers.outlier_columns import OUTLIER_COLUMNS
from pages.panels.layers.rank_per_layer import RANK_PER_LAYER
from pages.panels.layers.rank_planner import RANK_PLANNER
from pages.panels.layers.salience import SALIENCE
from pages.panels.layers.salient_channels import SALIENT_CHANNELS
from pages.panels.layers.sensitivity import SENSITIVITY
from pages.panels.layers.singular_values import SINGULAR_VALUES
from pages.panels.layers.sparsity_per_layer import SPARSITY_PER_LAYER
from pages.panels.layers.spectrum import SPECTRUM
from pages.panels.layers.structure_grid import STRUCTURE_GRID
from pages.panels.layers.structure_scores import STRUCTURE_SCORES
from pages.panels.layers.structures_kept import STRUCTURES_KEPT
from pages.panels.layers.where_the_bytes_are import WHERE_THE_BYTES_ARE
from pages.panels.panel import Panel
from pages.panels.runs.agreement import AGREEMENT
from pages.panels.runs.size_ledger import SIZE_LEDGER
from pages.panels.runs.speed import SPEED
from pages.panels.runs.storage import STORAGE
from pages.panels.runs.trade_off import TRADE_OFF
from pages.panels.runs.waterfall import WATERFALL
from pages.panels.training.block_similarity import BLOCK_SIMILARITY
from pages.panels.training.gradual_pruning import GRADUAL_PRUNING
from pages.panels.training.learning_rate import LEARNING_RATE
from pages.panels.training.lost_gradients import LOST_GRADIENTS
from pages.panels.training.lottery import LOTTERY
from pages.panels.training.schedule_live import SCHEDULE_LIVE
from pages.panels.training.soft_targets import SOFT_TARGETS
from pages.panels.training.throughput import THROUGHPUT
from pages.panels.training.training_curves import TRAINING_CURVES
from pages.panels.weights.error_by_bits import ERROR_BY_BITS
from pages.panels.weights.group_rounding import GROUP_ROUNDING
from pages.panels.weights.importance import IMPORTANCE
from pages.panels.weights.levels import LEVELS
from pages.panels.weights.mask import MASK
from pages.panels.weights.mask_overlap import MASK_OVERLAP
from pages.panels.weights.one_layer_side_by_side import ONE_LAYER_SIDE_BY_SIDE
from pages.panels.weights.reconstruction import RECONSTRUCTION
from pages.panels.weights.removed_weights import REMOVED_WEIGHTS
from pages.panels.weights.weight_histogram import (
    WEIGHT_HISTOGRAM,
    WEIGHTS_LEFT,
    WEIGHTS_OF_FACTORS,
    WEIGHTS_OF_STRUCTURES,
)
from pages.panels.weights.weight_map import WEIGHT_MAP

__all__ = [
    "ACTIVATION_SURFACE",
    "AGREEMENT",
    "ALPHA_SEARCH",
    "BITS_PER_LAYER",
    "BLOCK_SIMILARITY",
    "CHANNEL_ERROR",
    "CHANNEL_RANGES",
    "CHANNEL_SELECTION",
    "CUMULATIVE_ENERGY",
    "ERROR_BY_BITS",
    "GPTQ_REPLAY",
    "GRADUAL_PRUNING",
    "GRADUAL_PRUNING_PREVIEW",
    "GROUP_ROUNDING",
    "IMPORTANCE",
    "INPUT_RANGES",
    "LAYER_ERROR",
    "LAYER_ERROR_SIDE_BY_SIDE",
    "LEARNING_RATE",
    "LEVELS",
    "LOST_GRADIENTS",
    "LOTTERY",
    "LOTTERY_PREVIEW",
    "MASK",
    "MASK_OVERLAP",
    "OBSERVERS",
    "ONE_LAYER_SIDE_BY_SIDE",
    "OUTLIER_COLUMNS",
    "RANK_PER_LAYER",
    "RANK_PLANNER",
    "RECONSTRUCTION",
    "REMOVED_WEIGHTS",
    "SALIENCE",
    "SALIENT_CHANNELS",
    "SCALED_COLUMN",
    "SCHEDULE_LIVE",
    "SENSITIVITY",
    "SINGULAR_VALUES",
    "SIZE_LEDGER",
    "SOFT_TARGETS",
    "SPARSITY_PER_LAYER",
    "SPECTRUM",
    "SPEED",
    "STORAGE",
    "STRUCTURES_KEPT",
    "STRUCTURE_GRID",
    "STRUCTURE_SCORES",
    "THROUGHPUT",
    "TRADE_OFF",
    "TRAINING_CURVES",
    "WATERFALL",
    "WEIGHTS_LEFT",
    "WEIGHTS_OF_FACTORS",
    "WEIGHTS_OF_STRUCTURES",
    "WEIGHT_HISTOGRAM",
    "WEIGHT_MAP",
    "WHERE_THE_BYTES_ARE",
    "Panel",
]
