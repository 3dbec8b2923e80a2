"""Tables that preview a step from its options only. Importing this module imports the modules
``preview`` of all techniques, which register theirs. None of them imports torch.
"""

import logging
from functools import singledispatch
from importlib import import_module
from importlib.util import find_spec

import pandas as pd

from engine.config.registry import ALL_TECHNIQUES
from engine.config.technique import Technique


@singledispatch
def preview(config: Technique) -> tuple[type, pd.DataFrame] | None:
    """Row class, under ``@explanation_row``, and table of a step over time, computed by the same
    functions as in a run; None for techniques that do not proceed in rounds.
    """
    return None


for _package in dict.fromkeys(cls.__module__.rpartition(".")[0] for cls in ALL_TECHNIQUES):
    try:
        if find_spec(f"{_package}.preview"):
            import_module(f"{_package}.preview")
    except Exception as error:  # in another package; an error must not affect other techniques
        logging.getLogger(__name__).warning("%s.preview cannot be imported: %s", _package, error)
