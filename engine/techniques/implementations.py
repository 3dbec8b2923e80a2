"""Hooks of the techniques with all their implementations: importing this module imports all
modules of the techniques, which register what they implement.
"""

import logging
import pkgutil
from importlib import import_module
from importlib.util import find_spec

from engine import techniques
from engine.config.registry import EVERY
from engine.techniques.hooks import (
    beside,
    blueprint,
    check_models,
    compress,
    equivalent_weights,
    explanation,
    forecast_notes,
    layer_operations,
    nonzero_weights,
    outlined,
    plan,
    portrait,
    predicted_bytes,
    range_rows,
    rebuild,
    refuse_unfit,
    retrained,
    scales_for,
    search_work,
    survey,
    taught,
    training_work,
    why_unchanged,
)

__all__ = [
    "beside",
    "blueprint",
    "check_models",
    "compress",
    "equivalent_weights",
    "explanation",
    "forecast_notes",
    "layer_operations",
    "nonzero_weights",
    "outlined",
    "plan",
    "portrait",
    "predicted_bytes",
    "range_rows",
    "rebuild",
    "refuse_unfit",
    "retrained",
    "scales_for",
    "search_work",
    "survey",
    "taught",
    "training_work",
    "why_unchanged",
]

# modules of another package that register hooks; those besides the method are optional
REQUIRED, OPTIONAL = "method", ("cost", "explain")

for _module in pkgutil.walk_packages(techniques.__path__, f"{techniques.__name__}."):
    if not _module.ispkg and _module.name != __name__:
        import_module(_module.name)
for _technique in EVERY:
    if not _technique.__module__.startswith(f"{techniques.__name__}."):  # in another package
        _package = _technique.__module__.rpartition(".")[0]
        for _name in (f"{_package}.{name}" for name in (REQUIRED, *OPTIONAL)):
            try:
                if _name.endswith(f".{REQUIRED}") or find_spec(_name):
                    import_module(_name)
            except Exception as error:  # must not stop the others
                logging.getLogger(__name__).warning("%s cannot be imported: %s", _name, error)
