"""Hooks with the implementations of all techniques. Importing this module imports all modules of
the techniques, which register their implementations.
"""

import logging
import pkgutil
from importlib import import_module
from importlib.util import find_spec

from engine import techniques
from engine.config.registry import ALL_TECHNIQUES
from engine.techniques.hooks import (
    check_models,
    check_recipe,
    compress,
    diagnostics,
    equivalent_weights,
    explanation,
    forecast_notes,
    input_scales,
    layer_operations,
    nonzero_weights,
    plan,
    plan_removal,
    predicted_bytes,
    range_rows,
    replacement_outline,
    search_work,
    storage_plan,
    survey,
    train_replacement,
    train_weights,
    training_work,
    why_unchanged,
    with_adapter,
)

__all__ = [
    "check_models",
    "check_recipe",
    "compress",
    "diagnostics",
    "equivalent_weights",
    "explanation",
    "forecast_notes",
    "input_scales",
    "layer_operations",
    "nonzero_weights",
    "plan",
    "plan_removal",
    "predicted_bytes",
    "range_rows",
    "replacement_outline",
    "search_work",
    "storage_plan",
    "survey",
    "train_replacement",
    "train_weights",
    "training_work",
    "why_unchanged",
    "with_adapter",
]

# modules of another package that register hooks; those besides the method are optional
REQUIRED, OPTIONAL = "method", ("cost", "explain")

for _module in pkgutil.walk_packages(techniques.__path__, f"{techniques.__name__}."):
    if not _module.ispkg and _module.name != __name__:
        import_module(_module.name)
for _technique in ALL_TECHNIQUES:
    if not _technique.__module__.startswith(f"{techniques.__name__}."):  # in another package
        _package = _technique.__module__.rpartition(".")[0]
        for _name in (f"{_package}.{name}" for name in (REQUIRED, *OPTIONAL)):
            try:
                if _name.endswith(f".{REQUIRED}") or find_spec(_name):
                    import_module(_name)
            except Exception as error:  # an error must not affect other techniques
                logging.getLogger(__name__).warning("%s cannot be imported: %s", _name, error)
