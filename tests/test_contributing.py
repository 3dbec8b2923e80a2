"""The examples of a new technique and a new panel in CONTRIBUTING.md work as they are written."""

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
TECHNIQUE, PANEL = "Add a technique", "Add a panel"
NAME = "BYTES_KEPT"
# arguments: a folder, the documented test, and the documented part of a recipe
USE_TECHNIQUE = """
import sys
from pathlib import Path

import pytest

folder, test, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
every = "tests/engine/config/test_technique.py"
assert pytest.main(["-q", "-n", "0", test, every]) == 0  # before other imports, as pytest wants it

import yaml
from streamlit.testing.v1 import AppTest

from engine.pipeline.run import run
from tests.recipes import recipe_for
from tests.tiny import tiny

FORM = '''
import streamlit as st
from pages.widgets.forms.technique_form import pick_technique, technique_form

st.json(technique_form(pick_technique("quantization")))
'''
form = AppTest.from_string(FORM, default_timeout=300)
form.session_state["technique-quantization"] = "fixed-step"
form.run()
assert not form.exception, form.exception
assert form.selectbox[0].value == "fixed-step"
(slider,) = form.slider
assert (slider.label, slider.value, slider.min, slider.max) == ("Step", 0.5, 0.1, 2), slider
assert slider.help == "Distance of two levels, in standard deviations."

model = tiny("llama", folder / "model")
recipe = recipe_for("llama", model, folder / "data", *yaml.safe_load(step)["steps"])
outcome = run(recipe, save=folder / "saved")
layers = [row for row in outcome.tables.layers.itertuples() if row.technique == "fixed-step"]
assert len(layers) > 10
assert all(row.relative_error == pytest.approx(0.25 / 12**0.5, rel=0.1) for row in layers), layers
result = outcome.summary.result
sizes = [path.stat().st_size for path in (folder / "saved").glob("*.safetensors")]
assert result.size_bytes == sum(sizes)

read = run(recipe.model_copy(update={"model": str(folder / "saved"), "steps": ()}))
assert read.summary.result.perplexity == result.perplexity
assert read.summary.result.size_bytes == result.size_bytes
"""
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


def section(title: str) -> str:
    """Text of a section of CONTRIBUTING.md."""
    return (ROOT / "CONTRIBUTING.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def steps(title: str) -> dict[str, str]:
    """Code of each step of a section, by the file that it belongs to."""
    found = STEP.findall(section(title))
    return {path: textwrap.dedent(f"   {code.lstrip()}") for path, code in found}


def package_file() -> str:
    """File that makes the folder of the new technique a package."""
    (path,) = re.findall(r"an empty\s+`([\w/]+\.py)`", section(TECHNIQUE))
    return path


def recipe_part() -> str:
    """Steps of a recipe with the new technique."""
    return section(TECHNIQUE).split("```yaml\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def contributed_copy(tmp_path_factory) -> Path:
    """A copy of the repository in which a contributor has carried out the steps."""
    copy = tmp_path_factory.mktemp("repository")
    for folder in ("engine", "pages", "tests"):
        leave_out = shutil.ignore_patterns("__pycache__", "golden", "benchmarks")
        shutil.copytree(ROOT / folder, copy / folder, ignore=leave_out)
    (copy / "assets").symlink_to(ROOT / "assets")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for path, code in {package_file(): "", **steps(TECHNIQUE)}.items():
        create(copy / path, code)
    code = steps(PANEL)
    panel, exports, table, sample = code
    create(copy / panel, code[panel])
    change(copy / exports, "\n__all__ = [", f'{code[exports]}\n\n__all__ = [\n    "{NAME}",')
    (copy / table).write_text((copy / table).read_text() + "\n\n" + code[table] + "\n")
    change(copy / sample, "\nTABLES = {", f"\nTABLES = {{\n    {code[sample]}")
    return copy


def create(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code and code + "\n")


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


def test_a_new_technique_is_one_folder_and_its_test():
    config, method, test = steps(TECHNIQUE)
    folder = "engine/techniques/quantization/fixed_step"
    files = [package_file(), config, method]
    assert files == [f"{folder}/{name}.py" for name in ("__init__", "config", "method")]
    assert test == f"tests/{folder}/test_method.py" and not (ROOT / folder).exists()


def test_a_technique_added_as_described_has_a_form_and_compresses_and_saves_a_model(
    contributed_copy, tmp_path
):
    test = list(steps(TECHNIQUE))[-1]
    used = python(contributed_copy, "-c", USE_TECHNIQUE, str(tmp_path), test, recipe_part())
    assert used.returncode == 0, used.stdout[-3000:] + used.stderr[-3000:]


def test_a_new_panel_is_one_file_and_a_line_in_three_others():
    panel, *others = steps(PANEL)
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
    whole = [path for path in steps(PANEL) if not path.endswith(("__init__.py", "every_panel.py"))]
    files = [*steps(TECHNIQUE), *whole]
    checked = python(contributed_copy, "-m", "ruff", "format", "--check", *files)
    assert checked.returncode == 0, checked.stdout
