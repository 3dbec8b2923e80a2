"""Defaults compared with their alternatives on the bundled models: the measured values of
docs/defaults.md.

    python -m tests.benchmarks.defaults [--out FILE] [--only PATTERN ...] [--tokens 32768]

A group is one option of one technique. Its first setting is the default (or was), and the others
are compared with it over the same windows or examples: the difference has a paired standard error.
docs-lm is measured by perplexity, and its difference is that of the mean loss in hundredths of a
nat, which is percent of perplexity where it is small; docs-classifier and digits-cnn by accuracy.
Bits are per parameter of the whole file.

Each measured setting is appended to FILE, a JSON line with the loss of every window (or 1 and 0 for
every example). A rerun with the same FILE and protocol measures what is missing and prints all. All
arithmetic takes one thread: on small models, threads that wait for one another on a busy machine
take ten times as long. Two reruns with different patterns use two cores.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from tests.benchmarks.default_options import BEFORE, CLASSIFIER, CNN, GROUPS, LM, Group
from tests.benchmarks.resumable import append_line, stored_lines

HEADER = (
    "| Option | Setting | Model | Bits per parameter | Quality | Difference | Seconds "
    "|\n|---|---|---|---:|---:|---:|---:|"
)
CONTEXT = 256


@dataclass(frozen=True)
class Protocol:
    """Data that settings are measured on."""

    tokens: int = 32_768  # of docs-lm's test text
    samples: int = 1_000  # test examples of the classifiers
    calibration: int = 64  # windows or examples


@dataclass(frozen=True)
class Result:
    """One setting of a group, measured."""

    group: str
    setting: dict
    steps: list[dict]  # with every option, so that a default that changes is measured again
    protocol: dict
    # mean loss of each window, or 1 and 0 for each example that is right and wrong
    each: list[float]
    bits: float
    seconds: float  # of compressing
    day: str = field(default_factory=lambda: date.today().isoformat())

    @property
    def identity(self) -> str:
        """Equal for results of the same setting under the same protocol."""
        return json.dumps([self.group, self.setting, self.steps, self.protocol], sort_keys=True)

    @property
    def quality(self) -> str:
        mean = float(np.mean(self.each))
        return f"{math.exp(mean):.3f}" if GROUPS[self.group].model == LM else f"{mean:.4f}"


def chosen_groups(patterns: list[str]) -> list[str]:
    return [
        name for name in GROUPS if not patterns or any(fnmatch(name, each) for each in patterns)
    ]


def results_of(name: str, protocol: Protocol, path: Path | None) -> Iterator[Result]:
    """Stored results of a group, and those that are missing, measured and stored."""
    stored = {result.identity: result for result in (Result(**line) for line in stored_lines(path))}
    for setting in GROUPS[name].settings:
        steps = [
            step.model_dump(mode="json")
            for step in recipe_of(GROUPS[name], setting, protocol).steps
        ]
        result = Result(name, setting, steps, asdict(protocol), [], 0.0, 0.0)
        if result.identity in stored:
            yield stored[result.identity]
            continue
        result = measured_result(result, protocol)
        append_line(path, asdict(result))
        yield result


def recipe_of(group: Group, setting: dict, protocol: Protocol):
    from engine.recipe import Recipe

    step = group.base | setting
    kind = {
        LM: "language-modeling",
        CLASSIFIER: "text-classification",
        CNN: "image-classification",
    }[group.model]
    task = {"kind": kind} | (
        {"context": CONTEXT} if group.model == LM else {"samples": protocol.samples}
    )
    return Recipe.from_dict(
        {
            "model": f"bundled:{group.model}",
            "task": task,
            "calibration": {"samples": protocol.calibration},
            "device": "cpu",
            "steps": [*BEFORE.get(step["technique"], []), step] if step else [],
        }
    )


def measured_result(result: Result, protocol: Protocol) -> Result:
    group = GROUPS[result.group]
    recipe = recipe_of(group, result.setting, protocol)
    with tempfile.TemporaryDirectory() as place:
        at, seconds = compress_and_open(recipe, Path(place))
        each = losses(at, protocol.tokens) if group.model == LM else right(at, recipe)
        return replace(
            result,
            each=np.round(each, 6).tolist(),
            bits=round(bits_of(at), 6),
            seconds=round(seconds, 2),
        )


def rows(groups: list[str], protocol: Protocol, path: Path | None) -> Iterator[str]:
    for name in groups:
        first = None
        for result in results_of(name, protocol, path):
            first = first or result
            words = ", ".join(f"{option} {value}" for option, value in result.setting.items())
            group = GROUPS[name]
            yield (
                f"| {group.option} | {words or 'default'} | {group.model} | {result.bits:.3f} "
                f"| {result.quality} | {difference(result, first)} | {result.seconds:.1f} |"
            )


def difference(result: Result, first: Result) -> str:
    """Perplexity in percent, or accuracy in points, with its paired standard error."""
    if result is first:
        return ""
    unit = "%" if GROUPS[result.group].model == LM else " points"
    return paired_difference(result.each, first.each) + unit


def paired_difference(each: list[float], others: list[float]) -> str:
    """Mean difference and its standard error over the same windows or examples, in hundredths."""
    apart = 100 * (np.array(each) - np.array(others))
    return f"{apart.mean():+.2f} ± {apart.std(ddof=1) / math.sqrt(len(apart)):.2f}"


def losses(at, tokens: int) -> np.ndarray:
    """Mean loss of each window."""
    import torch
    from torch.nn.functional import cross_entropy

    from engine.evaluation.data.examples import load_text
    from engine.evaluation.data.tokens import text_tokens, token_windows
    from engine.models.loading import resolve_model, tokenizer_of
    from engine.models.packed_modules import keep_unpacked

    stream = text_tokens(
        load_text("bundled:docs"), tokenizer_of(resolve_model("bundled:docs-lm")), tokens
    )
    found = []
    with torch.inference_mode(), keep_unpacked(at.model):
        for batch in token_windows(stream, CONTEXT, "bundled:docs").split(4):
            logits = at.model(input_ids=batch).logits[:, :-1].float()
            each = cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none")
            found.append(each.mean(1))
    return torch.cat(found).double().numpy()


def right(at, recipe) -> np.ndarray:
    """1 for each example that is answered rightly, 0 for the others."""
    from engine.evaluation import evaluate
    from engine.evaluation.data.examples import load_examples
    from engine.models.loading import resolve_model

    guesses = evaluate(recipe.task, at.model, resolve_model(recipe.model)).guesses
    return (guesses == np.array(load_examples(recipe.task).labels)).astype(int)


def compress_and_open(recipe, place: Path):
    """The compressed model, opened from the folder it was written to, and the seconds that took.

    No finished block is kept: another measurement would go on from it.
    """
    import torch

    from engine.models.loaded_model import device_and_dtype, load_model
    from engine.models.loading import resolve_model
    from engine.pipeline.resume import ResumeStore
    from engine.pipeline.steps import run_steps
    from engine.step.run_context import RunContext

    class KeepsNothing(ResumeStore):
        def claim_step_folder(self, bench: RunContext, batches: list = ()) -> None:
            return None

    folder = resolve_model(recipe.model)
    original = load_model(folder, *device_and_dtype(recipe))
    if not recipe.steps:
        return original, 0.0
    torch.manual_seed(recipe.seed)
    _, packed, seconds = run_steps(
        RunContext(recipe, folder), original, place, KeepsNothing(), lambda *_: None
    )
    return load_model(resolve_model(str(packed.folder)), *device_and_dtype(recipe)), seconds


def bits_of(at) -> float:
    from engine.measurement.size import bits_per_parameter

    return bits_per_parameter(at.size_bytes, at.origin)


def main() -> None:
    import torch

    from engine.runtime.worker_setup import setup_worker

    usual = Protocol()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, help="JSON-lines file of measured settings, read and appended to"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help=(
            "group, or pattern such as 'gptq-*', which may be repeated; groups are "
            f"{', '.join(GROUPS)}"
        ),
    )
    parser.add_argument("--tokens", type=int, default=usual.tokens, help="of docs-lm's test text")
    parser.add_argument(
        "--samples", type=int, default=usual.samples, help="test examples of the classifiers"
    )
    parser.add_argument(
        "--calibration", type=int, default=usual.calibration, help="windows or examples"
    )
    given = parser.parse_args()
    if not (groups := chosen_groups(given.only)):
        parser.error(
            f"no group is called {' or '.join(given.only)}; groups are {', '.join(GROUPS)}"
        )
    setup_worker()
    torch.set_num_threads(1)
    print(HEADER, flush=True)
    for row in rows(groups, Protocol(given.tokens, given.samples, given.calibration), given.out):
        print(row, flush=True)


if __name__ == "__main__":
    main()
