"""Texts of recipes that would take a parser without limits much time or memory."""

import json

from engine.recipe.text import MAX_ALIASES, MAX_VALUES

NINE = ", ".join(["*a{0}"] * 9)


def nested_lines(first: str, line: str, levels: int) -> str:
    """Lines that each refer to the one before nine times."""
    return "\n".join(
        [first, *(line.format(number, NINE.format(number - 1)) for number in range(1, levels))]
    )


HOSTILE = {
    "merge keys in merge keys": nested_lines(
        "a0: &a0 {k: 1}", "a{0}: &a{0} {{<<: [{1}], x{0}: 1}}", 25
    ),
    "aliases in aliases": nested_lines("a0: &a0 [x, x]", "a{0}: &a{0} [{1}]", 12),
    "an alias inside of its anchor": "a: &a [*a]",
    "a merge key inside of its anchor": "a: &a {<<: *a}",
    "many aliases": "a: &a 1\nb: [" + "*a, " * (MAX_ALIASES + 1) + "]",
    "open brackets": "[" * 60_000,
    "open braces in JSON": '{"a":' * 10_000,
    "dashes": "- " * 30_000,
    "question marks": "? " * 30_000,
    "many keys": "\n".join(f"k{number}: 1" for number in range(MAX_VALUES)),
    "many keys in JSON": json.dumps({f"k{number}": 1 for number in range(MAX_VALUES // 2)}),
    "many names": json.dumps({"layers": {"skip": ["a"] * MAX_VALUES}}),
    "many steps": "steps: [" + "{technique: gptq}, " * 1000 + "]",
    "a number in base 60": "seed: 1" + ":1" * 30_000,
    "a float in base 60": "seed: " + "59:" * 2_000 + "59.5",
    "a long number": '{"seed": ' + "9" * 60_000 + "}",
    "a long text": "model: " + "x y " * 15_000,
    "a long comment": "#" + "x" * 10_000_000,
    "a tag": "!!python/object/apply:os.system [id]",
    "a date that is none": "seed: 2026-02-32",
    "half a character": '{"model": "\\ud800"}',
}
