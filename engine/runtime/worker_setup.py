"""Setup of worker processes: number of threads, and logging levels of libraries."""

import logging
import warnings

import torch

from engine.runtime.platform_support import usable_cpus


def setup_worker() -> None:
    """Use all cores, because workers start with one thread, and let libraries log errors only."""
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
