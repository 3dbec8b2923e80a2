"""Many cases in one test item."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest

LONGEST_LABEL = 200


def for_each(
    names: str | Sequence[str],
    cases: Iterable[Any],
    ids: Iterable[Any] | Callable[[Any], str] | None = None,
) -> Callable[[Callable], Callable]:
    """Run the test once for each case, as `pytest.mark.parametrize` does, but as one item.

    A case that fails is reported as a subtest with its label, and those after it still run;
    `pytest --case TEXT` runs only cases with the text in their label.
    Each case has a `tmp_path` of its own, and its `monkeypatch` is undone after it; all other
    fixtures are shared by the cases. Loops that are stacked run over the product of their cases.
    """
    names = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    cases = [dict(zip(names, case if len(names) > 1 else [case], strict=True)) for case in cases]
    if not cases:
        raise ValueError(f"No cases of {', '.join(names)}: such a test cannot fail.")
    if ids is None or callable(ids):
        ids = [" ".join(label(value, ids) for value in case.values()) for case in cases]
    labeled = list(zip(map(printable, ids), cases, strict=True))

    def decorator(test: Callable) -> Callable:
        body = getattr(test, "body_of_loop", test)
        further = getattr(test, "cases_of_loop", [("", {})])
        product_of_cases = [
            (f"{first} {second}".strip(), this | that)
            for (second, that), (first, this) in product(further, labeled)
        ]

        @wraps(test)
        def loop(subtests: pytest.Subtests, pytestconfig: pytest.Config, **fixtures: Any) -> None:
            wanted = pytestconfig.getoption("--case")
            chosen = [(name, case) for name, case in product_of_cases if wanted in name]
            if not chosen:
                pytest.skip(f"no case with {wanted} in its label")
            for number, (name, case) in enumerate(chosen):
                with subtests.test(name), own_fixtures(fixtures, number) as own:
                    body(**own, **case)

        for attribute in [name for name in vars(loop) if "hypothesis" in name]:
            delattr(loop, attribute)  # or its plugin takes the loop for a property
        loop.body_of_loop, loop.cases_of_loop = body, product_of_cases
        given = product_of_cases[0][1]
        own = inspect.signature(body).parameters.values()
        needed = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
            for name in ("subtests", "pytestconfig")
        ]
        loop.__signature__ = inspect.Signature([*(p for p in own if p.name not in given), *needed])
        return loop

    return decorator


def covering(first: Iterable[Any], second: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Pairs for `for_each`: each value of `second` with the first value of `first` and with one of
    its others in turn, or all combinations if the environment variable ALL_CASES is set.
    """
    (main, *others), second = list(first), list(second)
    further = in_turn(others, second)
    return [(main, value) for value in second] + further


def in_turn(first: Iterable[Any], second: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Pairs for `for_each`: each value of `second` with one value of `first` in turn, or all
    combinations if the environment variable ALL_CASES is set.
    """
    if os.environ.get("ALL_CASES"):
        return list(product(first, second))
    return list(zip(cycle(first), second, strict=False))


def label(value: Any, name: Callable[[Any], str] | None) -> str:
    """Short text that tells one case from the others."""
    try:
        text = name(value) if name else getattr(value, "__name__", None) or str(value)
    except ValueError:  # an integer of thousands of digits
        text = type(value).__name__
    return text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL]}…"


def printable(text: Any) -> str:
    """The text with escapes for what a terminal or another process may not take."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


@contextmanager
def own_fixtures(fixtures: dict[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """Fixtures of one case: a folder of its own, and patches that end with it."""
    own = dict(fixtures)
    if "tmp_path" in own:
        own["tmp_path"] = Path(own["tmp_path"], str(number))
        own["tmp_path"].mkdir()
    with pytest.MonkeyPatch.context() as patch:
        if "monkeypatch" in own:
            own["monkeypatch"] = patch
        yield own
