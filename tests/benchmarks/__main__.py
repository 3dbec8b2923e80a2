"""Every benchmark, or those named, one after the other in processes of their own, as one Markdown
table.

python -m tests.benchmarks [NAME ...]
"""

import subprocess
import sys
from collections.abc import Iterator
from datetime import date

from tests.benchmarks.machine import machine_description
from tests.benchmarks.measurement import HEADER

NAMES = (
    "startup",
    "page_switch",
    "what_if",
    "compression_cost",
    "first_look",
    "memory",
    "quantization",
    "pruning",
    "orderings",
)


def rows_of(name: str) -> Iterator[str]:
    """Rows of a benchmark as they are produced, without the header."""
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.{name}"], stdout=subprocess.PIPE, text=True
    ) as script:
        yield from (
            line.rstrip()
            for line in script.stdout
            if line.startswith("| ") and line.rstrip() not in HEADER
        )
    if script.returncode:
        yield f"| {name} | | failed, see above | | | |"


if __name__ == "__main__":
    print(f"{date.today()}. {machine_description()}\n\n{HEADER}", flush=True)
    for name in sys.argv[1:] or NAMES:
        for row in rows_of(name):
            print(row, flush=True)
