"""Runs of each family on a GPU and on the CPU, as a Markdown table: seconds, peak device memory,
quality.

    python -m tests.gpu_check runs [--device cuda | cpu] [--seconds 240]     python
tests/gpu_check.py missing

``missing`` prints the requirements (for pip) that are not installed, except torch.
``tests/gpu_check.sh`` calls both.
"""

import argparse
import re
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt")
NEVER_REPLACED = ("torch",)
NOT_NEEDED = ("streamlit", "plotly", "playwright", "ruff", "import-linter")
FAMILIES: dict[str, dict[str, Any]] = {
    "GPTQ, 4 bits": {"technique": "gptq"},
    "NF4": {"technique": "bitsandbytes"},
    "SparseGPT, 50%": {"technique": "sparsegpt"},
    "A quarter of the neurons": {"technique": "structured", "share": 0.25, "score": "activations"},
    "SVD, 80% of the parameters": {"technique": "svd"},
    "Distillation, half of the blocks": {"technique": "distill", "steps": 10, "batch": 4},
    "QAT, 3 bits": {"technique": "qat", "bits": 3, "steps": 10, "batch": 4},
    "LoRA after 4 bits": {"technique": "qlora", "steps": 10, "batch": 4},
}
HEADER = (
    "| model | technique | device | seconds | peak device memory | loss: original | compressed | "
    "loss on the CPU | difference |\n"
    "|---|---|---|---:|---:|---:|---:|---:|---:|"
)
TOLERANCE = 0.02  # of the loss; bfloat16 products and ties of codes differ between devices


def missing() -> list[str]:
    """Requirements that are not installed at their pinned version."""
    lines = [line.strip() for path in REQUIREMENTS for line in path.read_text().splitlines()]
    pins = [re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+)", line) for line in lines]
    known = [
        (pin[1], pin[2]) for pin in pins if pin and pin[1] not in (*NEVER_REPLACED, *NOT_NEEDED)
    ]
    return [f"{name}=={pinned}" for name, pinned in known if installed_version(name) != pinned]


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def runs(device: str, seconds: float) -> int:
    """Print the table and return the number of failed rows. After ``seconds`` no row is started;
    skipped rows are listed.
    """
    import torch

    end, failed, left_out = time.monotonic() + seconds, 0, []
    if device == "cuda" and not torch.cuda.is_available():
        print(
            (
                "No CUDA device is usable; check the driver and that torch is a CUDA build, or "
                "use --device cpu."
            ),
            file=sys.stderr,
        )
        return 1
    print(
        (
            f"torch {torch.__version__}, "
            f"{torch.cuda.get_device_name() if device == 'cuda' else 'CPU only'}\n\n{HEADER}"
        ),
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for model, recipe in models(Path(folder), small=device == "cpu").items():
            for title, step in FAMILIES.items():
                if time.monotonic() > end:
                    left_out.append(f"{model}: {title}")
                    continue
                failed += not printed_row(
                    model, title, recipe | {"steps": [step]}, device, Path(folder)
                )
    if left_out:
        print(f"\nNot run within {seconds:.0f} s: {'; '.join(left_out)}.")
    return failed + len(left_out)


def models(folder: Path, small: bool) -> dict[str, dict[str, Any]]:
    """Recipes without steps: the bundled language model, and a random Llama with a billion
    parameters (``small``: 6 million).
    """
    from tests.benchmarks.models import Size, text_in

    size, name = (
        (Size(256, 688, 8), "random Llama, 6M")
        if small
        else (Size(2048, 5632, 22), "random Llama, 1B")
    )
    text = str(text_in(folder))
    random = {
        "model": str(size.save_model(folder / "llama")),
        "task": {"kind": "language-modeling", "text": text, "context": 128, "tokens": 2048},
    }
    bundled = {
        "model": "bundled:docs-lm",
        "task": {"kind": "language-modeling", "context": 256, "tokens": 8192},
    }
    return {
        "docs-lm": bundled | {"calibration": {"samples": 16, "context": 256}},
        name: random | {"calibration": {"text": text, "samples": 8, "context": 128}},
    }


def printed_row(model: str, title: str, recipe: dict[str, Any], device: str, folder: Path) -> bool:
    """Run the recipe on the device and evaluate the saved model on the CPU; return False if it
    failed or the results differ.
    """
    import torch

    from engine.pipeline.run import run
    from engine.recipe import Recipe

    saved, began = Path(tempfile.mkdtemp(dir=folder)) / "model", time.monotonic()
    try:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        on_device = run(
            Recipe.from_dict(recipe | {"device": device, "speed": False}), save=saved
        ).summary
        took = time.monotonic() - began
        peak = f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if device == "cuda" else ""
        again = Recipe.from_dict(
            {"model": str(saved), "task": recipe["task"], "device": "cpu", "speed": False}
        )
        on_cpu = run(again).summary.baseline.loss
    except Exception as error:  # continue with the other rows
        print(
            (
                f"| {model} | {title} | {device} | {time.monotonic() - began:.1f} | failed: "
                f"{type(error).__name__}: {str(error)[:200]} | | | | |"
            ),
            flush=True,
        )
        return False
    difference = abs(on_device.result.loss - on_cpu) / on_cpu
    losses = (
        f"{on_device.baseline.loss:.4f} | {on_device.result.loss:.4f} | {on_cpu:.4f} | "
        f"{difference:.2%}"
    )
    print(
        f"| {model} | {title} | {on_device.device} | {took:.1f} | {peak} | {losses} |", flush=True
    )
    return difference <= TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["missing", "runs"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=240)
    chosen = parser.parse_args()
    if chosen.what == "missing":
        print(" ".join(missing()))
        return 0
    return min(1, runs(chosen.device, chosen.seconds))


if __name__ == "__main__":
    sys.exit(main())
