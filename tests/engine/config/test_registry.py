"""Techniques are found in their folders and in other installed packages."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.registry import (
    ALL_TECHNIQUES,
    ENTRY_POINTS,
    TECHNIQUES,
    config_modules,
    techniques_in,
)
from engine.recipe import Recipe
from tests.cases import for_each
from tests.tiny import SENTENCES, tiny
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "tests" / "example_technique" / "example_technique"


def test_each_folder_of_a_technique_has_a_config_and_a_method():
    for module in config_modules():
        folder = Path(module.__file__).parent
        assert techniques_in(module) and (folder / "method.py").is_file(), folder


def test_names_and_list_positions_are_unique():
    assert (
        len(TECHNIQUES) == len(ALL_TECHNIQUES) == len({cls.list_position for cls in ALL_TECHNIQUES})
    )


def install_example(folder: Path, entry: str = "example_technique.config:Example") -> Path:
    """Install the example package into ``folder``, as pip would do."""
    shutil.copytree(EXAMPLE, folder / EXAMPLE.name)
    information = folder / "example_technique-1.0.dist-info"
    information.mkdir()
    information.joinpath("METADATA").write_text("Name: example-technique\nVersion: 1.0\n")
    information.joinpath("entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nexample = {entry}\n")
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python with the packages in ``folder`` and a home of its own."""
    variables = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        "COMPRESSION_EXPLORER_HOME": str(folder / "home"),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture
def recipe(tmp_path) -> Path:
    """Recipe of the example technique on a tiny model."""
    model, text = tiny("llama", tmp_path / "model"), tmp_path / "text.txt"
    text.write_text(" ".join(SENTENCES * 40))
    task = {"kind": "language-modeling", "text": str(text), "context": 16, "tokens": 256}
    content = {
        "model": str(model),
        "task": task,
        "steps": [{"technique": "example-quantizer", "bits": 8}],
        "speed": False,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(content))
    return path


def test_an_installed_package_adds_a_technique_that_runs_and_is_read_again(tmp_path, recipe):
    folder = install_example(tmp_path / "packages")
    listed = json.loads(python(folder, "-m", "engine", "techniques", "--json").stdout)
    assert [row["title"] for row in listed][-1] == "Example quantizer" and len(listed) == 1 + len(
        ALL_TECHNIQUES
    )
    done = python(
        folder, "-m", "engine", "run", str(recipe), "--json", "--save", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    compressed = [row for row in result["layers"] if row["technique"] == "example-quantizer"]
    assert compressed and all(row["relative_error"] < 0.01 for row in compressed)
    size = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert result["result"]["size_bytes"] == size

    again = {**json.loads(recipe.read_text()), "model": str(tmp_path / "out"), "steps": []}
    recipe.write_text(json.dumps(again))
    read = json.loads(python(folder, "-m", "engine", "run", str(recipe), "--json").stdout)
    assert read["result"]["perplexity"] == pytest.approx(result["result"]["perplexity"])


VIEW = """
from engine.results.schema.run_tables import TABLES
from engine.results.store.store import Store
from engine.runtime.settings import home
from tests.pages.sessions import open_page, sentences, words_on

(record,) = Store(home()).records()
assert TABLES["example_scales"].row.__module__ == "example_technique.tables"
scales = Store(home()).tables(record.id).example_scales
layers = Store(home()).tables(record.id).layers
sizes = {row.name: row.shape[0] for row in layers.itertuples() if row.technique}
assert scales.groupby("layer").row.count().to_dict() == sizes and (scales.scale > 0).all()

app = open_page("runs", run=record.id, model=record.recipe.model)
assert "Row scales" in app.button_group(key="runs-view").options, app.button_group(key="runs-view")
app = open_page("runs", run=record.id, model=record.recipe.model, **{"runs-view": "Row scales"})
assert not app.exception and sentences(app) == [], (app.exception, sentences(app))
assert "How far apart are the levels of each row?" in words_on(app), words_on(app)
worst = app.selectbox(key=f"runs-{record.id}-layer").value
(shown,) = [each.value for each in app.dataframe if "scale" in each.value]
assert shown.scale.tolist() == scales[scales.layer == worst].scale.tolist()
from pages.widgets.state import session

session().close()
"""


def test_its_own_table_is_stored_with_a_run_and_shown_among_its_views(tmp_path, recipe):
    folder = install_example(tmp_path / "packages")
    done = python(folder, "-m", "engine", "run", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    script = tmp_path / "view.py"
    script.write_text(VIEW)
    seen = python(folder, str(script))
    assert seen.returncode == 0, seen.stderr[-3000:]


PAGE = """
import json, sys
from tests.pages.sessions import open_page, sentences, words_on

recipe = json.load(open(sys.argv[1]))
chosen = {"technique-quantization": "example-quantizer"}
app = open_page("quantize", model=recipe["model"], **chosen)
assert not app.exception and sentences(app) == [], (app.exception, sentences(app))
words = words_on(app)
for expected in ("How it works: Example quantizer", "Forecast", "Relative error", "Real weights"):
    assert expected in words, words
assert "How does the largest weight of a row set its scale?" in words, words
(shown,) = [each.value for each in app.dataframe if "largest" in each.value]
assert (shown.scale * 7 / shown.largest).sub(1).abs().max() < 1e-3, shown  # 4 bits: levels to 7
assert app.slider(key="quantize-example-quantizer-bits").value == 4
assert not app.button(key="quantize-run").disabled
from pages.widgets.state import session

session().close()
"""


def test_its_form_forecast_what_if_and_explanation_are_on_the_page(tmp_path, recipe):
    folder = install_example(tmp_path / "packages")
    script = tmp_path / "page.py"
    script.write_text(PAGE)
    seen = python(folder, str(script), str(recipe))
    assert seen.returncode == 0, seen.stderr[-3000:]


FURTHER = {
    "cost": """
from engine.step.workload import TrainingWork
from engine.techniques.hooks import training_work
from example_technique.config import Example

@training_work.register
def training_work_example(config: Example) -> TrainingWork:
    return TrainingWork(steps=7)
""",
    "explain": """
raise RuntimeError("an explanation that cannot be imported")
""",
    "preview": """
from engine.techniques.previews import preview
from example_technique.config import Example

@preview.register
def preview_example(config: Example) -> tuple:
    return dict, "table"
""",
}
USE = """
import sys
from engine.techniques.previews import preview
from example_technique.config import Example

assert preview(Example()) == (dict, "table") and "torch" not in sys.modules
from engine.techniques.implementations import explanation, storage_plan, training_work

assert training_work(Example()).steps == 7 and explanation(Example(), None) is None
assert storage_plan(Example(), (4, 8)).nbytes > 0
"""


def test_a_package_may_have_costs_explanations_and_previews(tmp_path):
    folder = install_example(tmp_path / "packages")
    for name, text in FURTHER.items():
        folder.joinpath("example_technique", f"{name}.py").write_text(text)
    done = python(folder, "-c", USE)
    assert done.returncode == 0, done.stderr
    assert "example_technique.explain cannot be imported: an explanation" in done.stderr


@for_each(
    ("entry", "reason"),
    [
        ("example_technique.config:Missing", "AttributeError"),
        ("example_technique.nothing:Example", "ModuleNotFoundError"),
        ("example_technique.config:Family", "it is not a technique"),
        ("engine.techniques.quantization.gptq.config:GPTQ", "the name 'gptq' is taken"),
    ],
)
def test_a_package_that_cannot_be_used_is_skipped_with_a_warning(tmp_path, entry, reason):
    found = python(
        install_example(tmp_path / "packages", entry), "-m", "engine", "techniques", "--json"
    )
    assert len(json.loads(found.stdout)) == len(ALL_TECHNIQUES) and reason in found.stderr


def test_a_recipe_of_a_missing_package_names_the_technique():
    with pytest.raises(ValueError, match="example-quantizer"):
        Recipe.from_dict({"steps": [{"technique": "example-quantizer"}]})
