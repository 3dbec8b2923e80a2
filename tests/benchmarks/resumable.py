"""Measurements kept as JSON lines, so that a benchmark that was stopped goes on where it ended."""

import json
from pathlib import Path


def stored_lines(path: Path | None) -> list[dict]:
    """Every whole line of a file; one that a killed process cut off is left out."""
    found = []
    for line in path.read_text().splitlines() if path and path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def append_line(path: Path | None, values: dict) -> None:
    """Add a line, on its own even after one that was cut off. Without a path nothing is kept."""
    if not path:
        return
    cut_off = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write("\n" * cut_off + json.dumps(values) + "\n")
