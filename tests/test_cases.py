"""A loop over cases is as strict as one test for each of them."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.cases import covering, for_each

TESTS = """
import os
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import covering, for_each

@for_each("number", [1, 2, 3])
@for_each("letter", "ab")
def test_product(number, letter, tmp_path, monkeypatch):
    assert not [*tmp_path.iterdir()] and "LETTER" not in os.environ
    (tmp_path / "file").touch()
    monkeypatch.setenv("LETTER", letter)
    if letter == "b":
        pytest.skip("b")
    assert number != 2

@for_each("number", [1, 2])
@for_each("text", ["\\udcff"])
@settings(max_examples=5)
@given(st.booleans())
def test_good(number, text, drawn):
    assert number and drawn in (True, False)
"""


def outcome(folder: Path, *options: str) -> str:
    (folder / "test_loops.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    root = Path(__file__).parents[1]
    arguments = ["-c", str(root / "pyproject.toml"), "-n", "1", str(folder), "-vv"]
    arguments += ["--confcutdir", str(folder), "-p", "tests.conftest"]
    done = subprocess.run([*command, *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_each_case_runs_and_a_failing_one_fails_the_test_by_name(tmp_path):
    words = outcome(tmp_path)
    assert "SUBFAILED[2 a]" in words and "SUBFAILED[1 a]" not in words
    assert "contains 1 failed subtest" in words and "PASSED test_loops.py::test_good" in words


def test_a_case_runs_alone(tmp_path):
    words = outcome(tmp_path, "--case", "1 a")
    assert "PASSED test_loops.py::test_product" in words
    assert "SKIPPED test_loops.py::test_good" in words


def test_no_cases_are_refused():
    with pytest.raises(ValueError, match="No cases of number: such a test cannot fail"):
        for_each("number", [])


def test_covering_pairs_have_every_value_and_all_combinations_on_request(monkeypatch):
    monkeypatch.delenv("ALL_CASES", raising=False)
    pairs = covering("abc", [1, 2, 3, 4])
    assert [second for first, second in pairs if first == "a"] == [1, 2, 3, 4]
    assert {first for first, _ in pairs} == {"a", "b", "c"} and len(pairs) == 8
    monkeypatch.setenv("ALL_CASES", "1")
    assert sorted(covering("abc", [1, 2])) == sorted(product("abc", [1, 2]))
