"""Description of the machine of the measurements."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

PACKAGES = (
    "torch",
    "transformers",
    "bitsandbytes",
    "streamlit",
    "plotly",
    "pandas",
    "distributed",
    "playwright",
)
CPU = Path("/proc/cpuinfo")


def machine_description() -> str:
    """Two Markdown lines: the machine, and what is installed on it."""
    busy = f"{psutil.getloadavg()[0]:.1f}"
    memory = f"{psutil.virtual_memory().total / 1e9:.0f} GB"
    versions = [
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in PACKAGES),
    ]
    return (
        f"{processor()}, {os.cpu_count()} cores, {memory}, {platform.platform()}; load average "
        f"{busy} at the start.\n\n{', '.join(versions)}."
    )


def processor() -> str:
    names = (
        [
            line.split(":", 1)[1].strip()
            for line in CPU.read_text().splitlines()
            if line.startswith("model name")
        ]
        if CPU.exists()
        else []
    )
    return names[0] if names else platform.processor()
