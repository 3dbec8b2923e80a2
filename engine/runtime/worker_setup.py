"""A worker's manners: all cores for the arithmetic, and no chatter of libraries in people's
terminals.
"""

import logging
import warnings

import torch

from engine.runtime.platform_support import usable_cpus


def setup_worker() -> None:
    """Workers start with one thread for arithmetic; take what the machine has. Libraries keep to
    errors.
    """
    torch.set_num_threads(usable_cpus())
    warnings.filterwarnings("ignore")
    for name in (
        "transformers",
        "datasets",
        "huggingface_hub",
        "bitsandbytes",
        "torch",
        "accelerate",
        "torchao",
    ):
        logger, level = (
            logging.getLogger(name),
            logging.CRITICAL if name == "bitsandbytes" else logging.ERROR,
        )
        if logger.level != level:  # setting a level clears every logger's cache, which takes 1 ms
            logger.setLevel(level)
