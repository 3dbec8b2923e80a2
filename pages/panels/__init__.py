"""The figures: each takes one table and answers one question. README.md is the map."""

from pages.panels.channel_error import CHANNEL_ERROR
from pages.panels.channel_ranges import CHANNEL_RANGES
from pages.panels.layer_error import LAYER_ERROR
from pages.panels.layer_error_side_by_side import LAYER_ERROR_SIDE_BY_SIDE
from pages.panels.levels import LEVELS
from pages.panels.one_layer_side_by_side import ONE_LAYER_SIDE_BY_SIDE
from pages.panels.panel import Panel
from pages.panels.salience import SALIENCE
from pages.panels.sensitivity import SENSITIVITY
from pages.panels.size_ledger import SIZE_LEDGER
from pages.panels.spectrum import SPECTRUM
from pages.panels.trade_off import TRADE_OFF
from pages.panels.weight_histogram import WEIGHT_HISTOGRAM
from pages.panels.where_the_bytes_are import WHERE_THE_BYTES_ARE

__all__ = [
    "CHANNEL_ERROR",
    "CHANNEL_RANGES",
    "LAYER_ERROR",
    "LAYER_ERROR_SIDE_BY_SIDE",
    "LEVELS",
    "ONE_LAYER_SIDE_BY_SIDE",
    "SALIENCE",
    "SENSITIVITY",
    "SIZE_LEDGER",
    "SPECTRUM",
    "TRADE_OFF",
    "WEIGHT_HISTOGRAM",
    "WHERE_THE_BYTES_ARE",
    "Panel",
]
