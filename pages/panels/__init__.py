"""The figures: each takes one table and answers one question. README.md is the map."""

from pages.panels.activation_surface import ACTIVATION_SURFACE
from pages.panels.alpha_search import ALPHA_SEARCH
from pages.panels.bits_per_layer import BITS_PER_LAYER
from pages.panels.block_similarity import BLOCK_SIMILARITY
from pages.panels.channel_error import CHANNEL_ERROR
from pages.panels.channel_ranges import CHANNEL_RANGES
from pages.panels.cumulative_energy import CUMULATIVE_ENERGY
from pages.panels.cuts_ahead import CUTS_AHEAD
from pages.panels.error_by_bits import ERROR_BY_BITS
from pages.panels.gptq_replay import GPTQ_REPLAY
from pages.panels.importance import IMPORTANCE, IMPORTANCE_BY_BLOCKS
from pages.panels.input_reach import INPUT_REACH
from pages.panels.layer_error import LAYER_ERROR
from pages.panels.layer_error_side_by_side import LAYER_ERROR_SIDE_BY_SIDE
from pages.panels.learning_pace import LEARNING_PACE
from pages.panels.levels import LEVELS
from pages.panels.lost_gradients import LOST_GRADIENTS
from pages.panels.lottery import LOTTERY
from pages.panels.mask import MASK
from pages.panels.mask_overlap import MASK_OVERLAP
from pages.panels.observers import OBSERVERS
from pages.panels.one_group import ONE_GROUP
from pages.panels.one_layer_side_by_side import ONE_LAYER_SIDE_BY_SIDE
from pages.panels.outlier_columns import OUTLIER_COLUMNS
from pages.panels.panel import Panel
from pages.panels.rank_per_layer import RANK_PER_LAYER
from pages.panels.rank_planner import RANK_PLANNER
from pages.panels.reconstruction import RECONSTRUCTION
from pages.panels.removed_weights import REMOVED_WEIGHTS
from pages.panels.rounds_ahead import ROUNDS_AHEAD
from pages.panels.salience import SALIENCE
from pages.panels.salient_channels import SALIENT_CHANNELS
from pages.panels.scaled_column import SCALED_COLUMN
from pages.panels.schedule import SCHEDULE
from pages.panels.schedule_live import SCHEDULE_LIVE
from pages.panels.sensitivity import SENSITIVITY
from pages.panels.singular_values import SINGULAR_VALUES
from pages.panels.size_ledger import SIZE_LEDGER
from pages.panels.soft_targets import SOFT_TARGETS
from pages.panels.sparsity_per_layer import SPARSITY_PER_LAYER
from pages.panels.spectrum import SPECTRUM
from pages.panels.speed import SPEED
from pages.panels.storage import STORAGE
from pages.panels.structure_grid import STRUCTURE_GRID
from pages.panels.structure_scores import STRUCTURE_SCORES
from pages.panels.structures_kept import STRUCTURES_KEPT
from pages.panels.trade_off import TRADE_OFF
from pages.panels.training_curves import TRAINING_CURVES
from pages.panels.training_pace import TRAINING_PACE
from pages.panels.verdicts import VERDICTS
from pages.panels.waterfall import WATERFALL
from pages.panels.ways_to_choose import WAYS_TO_CHOOSE
from pages.panels.weight_histogram import WEIGHT_HISTOGRAM, WEIGHTS_LEFT, WEIGHTS_OF_FACTORS, WEIGHTS_OF_STRUCTURES
from pages.panels.weight_map import WEIGHT_MAP
from pages.panels.where_the_bytes_are import WHERE_THE_BYTES_ARE

__all__ = [
    "ACTIVATION_SURFACE",
    "ALPHA_SEARCH",
    "BITS_PER_LAYER",
    "BLOCK_SIMILARITY",
    "CHANNEL_ERROR",
    "CHANNEL_RANGES",
    "CUMULATIVE_ENERGY",
    "CUTS_AHEAD",
    "ERROR_BY_BITS",
    "GPTQ_REPLAY",
    "IMPORTANCE",
    "IMPORTANCE_BY_BLOCKS",
    "INPUT_REACH",
    "LAYER_ERROR",
    "LAYER_ERROR_SIDE_BY_SIDE",
    "LEARNING_PACE",
    "LEVELS",
    "LOST_GRADIENTS",
    "LOTTERY",
    "MASK",
    "MASK_OVERLAP",
    "OBSERVERS",
    "ONE_GROUP",
    "ONE_LAYER_SIDE_BY_SIDE",
    "OUTLIER_COLUMNS",
    "RANK_PER_LAYER",
    "RANK_PLANNER",
    "RECONSTRUCTION",
    "REMOVED_WEIGHTS",
    "ROUNDS_AHEAD",
    "SALIENCE",
    "SALIENT_CHANNELS",
    "SCALED_COLUMN",
    "SCHEDULE",
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
    "TRADE_OFF",
    "TRAINING_CURVES",
    "TRAINING_PACE",
    "VERDICTS",
    "WATERFALL",
    "WAYS_TO_CHOOSE",
    "WEIGHTS_LEFT",
    "WEIGHTS_OF_FACTORS",
    "WEIGHTS_OF_STRUCTURES",
    "WEIGHT_HISTOGRAM",
    "WEIGHT_MAP",
    "WHERE_THE_BYTES_ARE",
    "Panel",
]
