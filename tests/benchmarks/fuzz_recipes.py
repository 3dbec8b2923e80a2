"""Recipes broken at random and made hostile on purpose: python -m tests.benchmarks.fuzz_recipes
[COUNT] [SEED].

Prints how many ended in a traceback (0), and the most processor time and memory that reading one
recipe took.
"""

import copy
import json
import random
import sys
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import yaml

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.recipe.text import MAX_BYTES
from tests.hostile_recipes import HOSTILE

SLOW_SECONDS = 10
ODD = (
    None,
    True,
    0,
    -1,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "\ud800",
    "é" * 300,
    "x" * 9000,
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    {"technique": "gptq"},
    "1e-5",
    "2026-02-32",
    "../..",
    "~nobody",
    "/dev/zero",
    "bundled:",
    "<b>x</b>",
    "*",
    "&a",
    "!!set",
    "a: b",
    "{",
    "[",
)
SCRAPS = (
    "<<: *a\n",
    "&a ",
    "*a",
    "!!binary ",
    "!!python/name:os ",
    "? ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "|\n",
    ">\n",
    "\t",
    "'",
    '"',
    "%YAML 9\n",
    "---\n",
    "...",
)


def any_recipe(draw: random.Random) -> dict:
    """Fields of a recipe with random options, most of them allowed."""
    names = draw.sample(sorted(TECHNIQUES), draw.choice((0, 1, 1, 1, 2, 3)))
    steps = []
    for name in names:
        defaults = TECHNIQUES[name]().model_dump(mode="json")
        steps.append(
            {"technique": name}
            | {
                option: defaults[option]
                for option in draw.sample(sorted(defaults), min(3, len(defaults)))
            }
        )
    kind = draw.choice(("language-modeling", "text-classification", "image-classification"))
    return {
        "model": "bundled:docs-lm",
        "task": {"kind": kind},
        "seed": draw.randrange(9),
        "layers": {"skip": ["lm_head"]},
        "steps": steps,
    }


def places_in(data: object) -> list[tuple]:
    """Containers and keys or indices in a nested value."""
    found = []
    for key in (
        list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    ):
        found += [(data, key), *places_in(data[key])]
    return found


def malformed_recipe(draw: random.Random) -> str:
    """Text of a recipe that is usually invalid."""
    recipe = any_recipe(draw)
    for _ in range(draw.choice((0, 1, 1, 2, 5))):
        holder, key = draw.choice(places_in(recipe))
        match draw.randrange(5):
            case 0 | 1:
                holder[key] = copy.deepcopy(draw.choice(ODD))
            case 2 if isinstance(holder, dict):
                holder[draw.choice(("stops", "bits", "kind", "text", "also", "", "x" * 99))] = (
                    copy.deepcopy(draw.choice(ODD))
                )
            case 3 if isinstance(holder, dict):
                del holder[key]
            case _:
                holder[key] = [copy.deepcopy(holder[key]) for _ in range(draw.choice((0, 2, 40)))]
    text = (
        json.dumps(recipe)
        if draw.random() < 0.4
        else yaml.safe_dump(recipe, allow_unicode=True, sort_keys=draw.random() < 0.5)
    )
    for _ in range(draw.choice((0, 0, 0, 1, 4))):
        at = draw.randrange(len(text) + 1)
        match draw.randrange(4):
            case 0:
                text = text[:at] + text[at + draw.randrange(20) :]
            case 1:
                text = text[:at] + draw.choice(SCRAPS) * draw.choice((1, 1, 3, 3000)) + text[at:]
            case 2:
                text = (
                    text[:at]
                    + chr(
                        draw.choice(
                            (
                                0,
                                7,
                                9,
                                0x85,
                                0xA0,
                                0x2028,
                                0xFEFF,
                                0xFFFF,
                                draw.randrange(32, 0xD7FF),
                            )
                        )
                    )
                    + text[at:]
                )
            case 3:
                text = text + "\n" + text[at:]
    return text[: 2 * MAX_BYTES]


def texts(count: int, seed: int) -> Iterator[str]:
    """Fixed hostile texts, then ``count`` malformed recipes."""
    yield from HOSTILE.values()
    draw = random.Random(seed)
    for _ in range(count):
        yield malformed_recipe(draw)


def main(count: int = 10_000, seed: int = 0) -> int:
    tracebacks, refused, longest = 0, 0, (0.0, "")
    for text in texts(count, seed):
        began = time.process_time()
        try:
            Recipe.from_yaml(text).key()
        except PlainError:
            refused += 1
        except Exception:  # what is looked for
            tracebacks += 1
            print(f"{text[:300]!r}\n{traceback.format_exc()}")
        longest = max(longest, (time.process_time() - began, text[:80]))
    peak = peak_bytes(count, seed)
    slow = longest[0] > SLOW_SECONDS
    print(f"{count + len(HOSTILE):,} recipes, {refused:,} refused, {tracebacks} tracebacks")
    print(f"most for one: {1000 * longest[0]:.0f} ms ({longest[1]!r}), {peak / 1e6:.1f} MB")
    return bool(tracebacks or slow)


def peak_bytes(count: int, seed: int) -> int:
    """Most memory that reading one text allocates. Tracing slows reading down, so the time is taken
    in a pass of its own.
    """
    most = 0
    tracemalloc.start()
    for text in texts(count, seed):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with suppress(Exception):
            Recipe.from_yaml(text).key()
        most = max(most, tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    return most


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
