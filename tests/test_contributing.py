"""The example of a new panel in CONTRIBUTING.md works as it is written."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[1]
STEP = re.compile(r"^\d\. .*?`([\w/]+\.py)`[^`]*:\n\n   ```python\n(.*?)\n   ```$", re.M | re.S)
NAME = "BYTES_KEPT"
PAGE = """
from streamlit.testing.v1 import AppTest

APP = '''
from pages.widgets.runs.results import show_run
from tests.runs import finished_record, tables

show_run(finished_record(1), tables(), "runs")
'''
app = AppTest.from_string(APP, default_timeout=300)
app.session_state["runs-view"] = "Bytes kept"
app.run()
assert not app.exception and not app.error, (app.exception, app.error)
headings = [each.value for each in app.markdown]
assert "#### What share of its bytes does each layer keep?" in headings, headings
assert "Layers that were not compressed keep 100%." in [each.value for each in app.caption]
"""


def steps() -> dict[str, str]:
    """Code of each step of "Add a panel", by the file that it belongs to."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("## Add a panel\n")[1].split("\n## ")[0]
    return {path: textwrap.dedent(f"   {code.lstrip()}") for path, code in STEP.findall(section)}


@pytest.fixture(scope="module")
def contributed_copy(tmp_path_factory) -> Path:
    """A copy of the repository in which a contributor has carried out the steps."""
    copy = tmp_path_factory.mktemp("repository")
    for folder in ("engine", "pages", "tests"):
        leave_out = shutil.ignore_patterns("__pycache__", "golden", "benchmarks")
        shutil.copytree(ROOT / folder, copy / folder, ignore=leave_out)
    (copy / "assets").symlink_to(ROOT / "assets")
    shutil.copy(ROOT / "pyproject.toml", copy)
    code = steps()
    panel, exports, table, sample = code
    (copy / panel).write_text(code[panel] + "\n")
    change(copy / exports, "\n__all__ = [", f'{code[exports]}\n\n__all__ = [\n    "{NAME}",')
    (copy / table).write_text((copy / table).read_text() + "\n\n" + code[table] + "\n")
    change(copy / sample, "\nTABLES = {", f"\nTABLES = {{\n    {code[sample]}")
    return copy


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    variables = {"PYTHONPATH": str(folder), "COMPRESSION_EXPLORER_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_the_example_names_the_files_that_a_new_panel_needs():
    panel, *others = steps()
    assert not (ROOT / panel).exists() and all((ROOT / path).is_file() for path in others)
    assert len(others) == 3


def test_a_panel_added_as_described_is_a_view_of_a_run(contributed_copy):
    shown = python(contributed_copy, "-c", PAGE)
    assert shown.returncode == 0, shown.stderr[-3000:]


def test_a_panel_added_as_described_passes_the_tests_of_every_panel(contributed_copy):
    passed = python(
        contributed_copy, "-m", "pytest", "-q", "-n", "0", "tests/pages/panels/test_every_panel.py"
    )
    assert passed.returncode == 0, passed.stdout[-3000:]


def test_code_added_as_described_is_formatted(contributed_copy):
    files = [path for path in steps() if not path.endswith(("__init__.py", "test_every_panel.py"))]
    checked = python(contributed_copy, "-m", "ruff", "format", "--check", *files)
    assert checked.returncode == 0, checked.stdout
