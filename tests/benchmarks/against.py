"""Ours against a reference: the same model, the same calibration windows, the same number of
threads.

    REFERENCE_PYTHON=references/bin/python python -m tests.benchmarks.quantization|pruning [TIMES]
    [BLOCKS] [MODEL]

The model is a random Llama with 768-wide blocks (12: 85 million parameters in them), or MODEL, a
directory. tests/golden/README.md says how the references' environment is made. Each measurement is
a process of its own, ours and theirs in turn. Seconds are those of compressing alone, from weights
in memory to compressed ones in memory (with calibration data ours reads them from the file, writes
them, and measures each layer's error); CPU seconds tell more where other work goes on. Perplexity
is measured by us for all, on windows after those of calibration.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measurement import Measurement, show

THREADS = 2
WINDOWS, CONTEXT = 32, 512
SCRIPT = Path(__file__).with_name("references.py")


@dataclass(frozen=True)
class Contest:
    what: str
    step: dict
    reference: str
    times_as_fast: str = ""  # what is aimed at


def measurements(
    contests: list[Contest], times: int, blocks: int, model: str
) -> Iterator[Measurement]:
    reference = os.environ.get("REFERENCE_PYTHON", "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model or random_model(folder, blocks)
        asked = {"model": model, "windows": str(windows_of(model, folder)), "threads": THREADS}
        for each in contests:
            ours, theirs = [], []
            for _ in range(times):
                ours.append(
                    carried_out(
                        [sys.executable, "-m", "tests.benchmarks.against"],
                        asked | {"step": each.step},
                    )
                )
                if reference:
                    theirs.append(
                        carried_out([reference, str(SCRIPT)], asked | {"step": each.step})
                    )
            yield from rows(
                each.what, {"ours": ours} | ({each.reference: theirs} if theirs else {})
            )
            if theirs:
                yield from ratios(each, ours, theirs)


def rows(what: str, runs: dict[str, list[dict[str, float]]]) -> Iterator[Measurement]:
    units = {"seconds": "s", "cpu": "CPU s", "memory": "MB", "perplexity": "perplexity"}
    for whose, measured in runs.items():
        for key, unit in units.items():
            yield Measurement(
                f"{what}, {whose}: {key}", tuple(run[key] for run in measured), unit, digits=4
            )


def ratios(
    each: Contest, ours: list[dict[str, float]], theirs: list[dict[str, float]]
) -> Iterator[Measurement]:
    for key, called in (("seconds", "times as fast"), ("cpu", "times as little CPU")):
        faster = tuple(b[key] / a[key] for a, b in zip(ours, theirs, strict=True))
        yield Measurement(
            f"{each.what}: {called} as {each.reference}", faster, "x", each.times_as_fast
        )
    worse = tuple(a["perplexity"] / b["perplexity"] for a, b in zip(ours, theirs, strict=True))
    yield Measurement(
        f"{each.what}: perplexity, ours to theirs", worse, "x", "at most 1.005", digits=4
    )


def carried_out(command: list[str], asked: dict) -> dict[str, float]:
    """Result that a process prints in its last line."""
    threads = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    said = subprocess.run(
        [*command, json.dumps(asked)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | threads,
    )
    result = json.loads(said.stdout.splitlines()[-1])
    return (
        result if "perplexity" in result else result | perplexity_of(result.pop("weights"), asked)
    )


def perplexity_of(weights: str, asked: dict) -> dict[str, float]:
    """Perplexity of a reference's result, measured here."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.against",
        json.dumps(asked | {"weights": weights}),
    ]
    return json.loads(
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ).stdout.splitlines()[-1]
    )


def random_model(folder: Path, blocks: int) -> str:
    import torch

    from tests.tiny import tiny

    sizes = {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": blocks,
        "vocab_size": 4096,
        "max_position_embeddings": CONTEXT,
    }
    return str(
        tiny(
            "llama",
            folder / "model",
            torch.float32,
            num_attention_heads=12,
            num_key_value_heads=12,
            **sizes,
        )
    )


def windows_of(model: str, folder: Path) -> Path:
    """Tokens of the bundled documentation, or drawn at random for a random model: those to
    calibrate with, then those to measure.
    """
    import torch
    from safetensors.torch import save_file

    config = json.loads((Path(model) / "config.json").read_text())
    if Path(model).is_relative_to(folder):
        tokens = torch.randint(
            4,
            config["vocab_size"],
            (2 * WINDOWS, CONTEXT),
            generator=torch.Generator().manual_seed(0),
        )
    else:
        tokens = documentation(model, min(CONTEXT, config["max_position_embeddings"]))
    save_file(
        {"calibration": tokens[:WINDOWS].contiguous(), "measured": tokens[WINDOWS:].contiguous()},
        folder / "windows.safetensors",
    )
    return folder / "windows.safetensors"


def documentation(model: str, context: int):
    from transformers import AutoTokenizer

    from engine.evaluation.data.examples import load_text
    from engine.evaluation.data.tokens import text_tokens, token_windows

    text = load_text("bundled:docs", "text", "test", lambda *_: None)
    return token_windows(
        text_tokens(text, AutoTokenizer.from_pretrained(model), 2 * WINDOWS * context),
        context,
        text.name,
    )


# --- in a process of its own ----------------------------------------------------------------------


def ours(asked: dict) -> dict[str, float]:
    """Compress with the engine's own walk, the windows in the place of the recipe's calibration
    data; then measure what was written.
    """
    import resource
    from time import perf_counter, process_time

    import torch
    from safetensors.torch import load_file

    from engine.models.layers import selected_layers
    from engine.models.loaded_model import device_and_dtype, load_model
    from engine.models.loading import resolve_model
    from engine.pipeline import blockwise as walk
    from engine.pipeline.run import working_folder
    from engine.recipe import Recipe
    from engine.runtime.worker_setup import setup_worker
    from engine.step.run_context import RunContext
    from engine.techniques.implementations import compress

    setup_worker()
    torch.set_num_threads(asked["threads"])
    windows = load_file(asked["windows"])
    recipe = Recipe.from_dict({"model": asked["model"], "steps": [asked["step"]], "device": "cpu"})
    if recipe.calibration:
        walk.load_calibration_batches = lambda bench: [
            {"input_ids": part} for part in windows["calibration"].split(8)
        ]
    bench = RunContext(recipe, resolve_model(recipe.model))
    original = load_model(bench.folder, *device_and_dtype(recipe))
    targets = selected_layers(original.layers, recipe.layers)
    import bitsandbytes  # noqa: F401, loading it is not compressing

    def compress_blockwise() -> None:
        walk.run_step(bench, original, targets, out)

    def compress_each(weights: list) -> list:
        return [compress(recipe.steps[0], weight) for weight in weights]

    weights = (
        []
        if recipe.calibration
        else [
            original.model.get_submodule(layer.name).stored.to_dense(torch.float32).clone()
            for layer in targets
        ]
    )
    with working_folder(None) as out:
        seconds, cpu = perf_counter(), process_time()
        compress_blockwise() if recipe.calibration else compress_each(weights)
        took = {"seconds": perf_counter() - seconds, "cpu": process_time() - cpu}
        took["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        if not recipe.calibration:
            compress_blockwise()
        return took | {
            "perplexity": perplexity(
                load_model(resolve_model(str(out)), *device_and_dtype(recipe)).model,
                windows["measured"],
            )
        }


def perplexity(model, windows) -> float:
    import torch

    losses = []
    with torch.inference_mode():
        for part in windows.split(4):
            logits = model(input_ids=part).logits[:, :-1].flatten(0, 1).float()
            losses.append(
                torch.nn.functional.cross_entropy(logits, part[:, 1:].flatten(), reduction="none")
            )
    return torch.cat(losses).mean().exp().item()


def theirs(asked: dict) -> dict[str, float]:
    """Perplexity of a reference's dense weights in the same model."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(asked["model"]).eval()
    model.load_state_dict(load_file(asked["weights"]), strict=False)
    Path(asked["weights"]).unlink()
    return {"perplexity": perplexity(model, load_file(asked["windows"])["measured"])}


def asked_for(contests: list[Contest]) -> None:
    """The table, with how often, how many blocks and which model as the command line says."""
    times, blocks, model = (*sys.argv[1:], *("3", "12", "")[len(sys.argv) - 1 :])
    show(measurements(contests, int(times), int(blocks), model))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(theirs(asked) if "weights" in asked else ours(asked)))
