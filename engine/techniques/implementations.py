"""Hooks of the techniques with all their implementations: importing this module imports all
modules of the techniques, which register what they implement.
"""

import logging
import pkgutil
from importlib import import_module

from engine import techniques
from engine.config.registry import EVERY
from engine.techniques.hooks import (
    beside,
    blueprint,
    compress,
    outlined,
    plan,
    portrait,
    predicted_bytes,
    rebuild,
    refuse_unfit,
    retrained,
    scales_for,
    survey,
    taught,
)

__all__ = [
    "beside",
    "blueprint",
    "compress",
    "outlined",
    "plan",
    "portrait",
    "predicted_bytes",
    "rebuild",
    "refuse_unfit",
    "retrained",
    "scales_for",
    "survey",
    "taught",
]

for _module in pkgutil.walk_packages(techniques.__path__, f"{techniques.__name__}."):
    if not _module.ispkg and _module.name != __name__:
        import_module(_module.name)
for _technique in EVERY:
    if not _technique.__module__.startswith(f"{techniques.__name__}."):  # in another package
        _method = f"{_technique.__module__.rpartition('.')[0]}.method"
        try:
            import_module(_method)
        except Exception as error:  # must not stop the others
            logging.getLogger(__name__).warning("%s cannot be imported: %s", _method, error)
