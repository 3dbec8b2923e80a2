"""Seconds of the example recipe from a shell, with the original measured before and not.

python -m tests.benchmarks.first_look

The corpus is extracted already: from this machine's own results folder where it is there, else by a
run that is not counted (some 40 seconds).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from engine.runtime.settings import home
from tests.benchmarks.measurement import Measurement, show

RECIPE = "assets/recipes/first-look.yaml"
TIMES = 3


@dataclass(frozen=True)
class Took:
    command: float  # seconds
    run: float


def measurements() -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        if (home() / "data").is_dir():
            shutil.copytree(home() / "data", data)
        took(data)
        cold, warm = zip(*[(forgetful(data), took(data)) for _ in range(TIMES)], strict=True)
    for baseline, runs in (("measured in it", cold), ("known already", warm)):
        yield Measurement(
            f"first-look.yaml, the original {baseline}: the command",
            tuple(run.command for run in runs),
            "s",
            "20 s",
        )
        yield Measurement(
            f"first-look.yaml, the original {baseline}: the run", tuple(run.run for run in runs)
        )


def forgetful(data: Path) -> Took:
    """Home folder without results about the original."""
    for kept in data.glob("baseline-*"):
        kept.unlink()
    return took(data)


def took(data: Path) -> Took:
    began = perf_counter()
    command = [sys.executable, "-m", "engine", "run", RECIPE, "--json"]
    environment = os.environ | {"COMPRESSION_EXPLORER_HOME": str(data.parent)}
    said = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ).stdout
    return Took(perf_counter() - began, json.loads(said)["seconds"])


if __name__ == "__main__":
    show(measurements())
