"""Tests mirror the modules path by path: engine/a/b.py has tests/engine/a/test_b.py, and the
package engine/a has tests/engine/a/test_a.py.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import LONGEST

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "pages")
MOST_UNTESTED = 50  # lines of functions in a module without a test of its own

# tests of a whole that no single module makes up
WHOLE = {
    "tests/test_cases.py": "tests/cases.py",
    "tests/test_contributing.py": "the example in CONTRIBUTING.md",
    "tests/test_docs.py": "README.md, CONTRIBUTING.md and docs/",
    "tests/test_goldens.py": "tests/golden",
    "tests/test_messages.py": "all sources",
    "tests/test_mirrors.py": "all tests",
    "tests/test_resumable_benchmarks.py": "tests/benchmarks",
    "tests/engine/test_devices.py": "every technique on a simulated GPU",
    "tests/engine/test_gpu.py": "every technique on a GPU",
    "tests/engine/test_ten_times.py": "the ten-times recipes",
    "tests/engine/forecast/test_recorded_forecasts.py": "forecasts of every technique",
    "tests/engine/models/test_convolutions.py": "convolutions with any option",
    "tests/engine/models/test_encoders.py": "encoders of the Hub as students",
    "tests/engine/models/test_further_architectures.py": "models of uncommon shapes",
    "tests/engine/models/test_hostile_models.py": "hostile model folders",
    "tests/engine/models/test_languages.py": "models with layers for each language",
    "tests/engine/models/test_malformed_inputs.py": "malformed folders and recipes",
    "tests/engine/models/test_many_layers.py": "work by the number of layers",
    "tests/engine/models/test_multimodal.py": "models that also read images",
    "tests/engine/pipeline/test_experts.py": "runs on models with experts",
    "tests/engine/results/store/test_store_fuzz.py": "damaged stores",
    "tests/engine/session/test_cluster_access.py": "who may use a cluster",
    "tests/engine/session/test_sharing.py": "quotas of visitors",
    "tests/engine/techniques/test_gains.py": "what training gains",
    "tests/engine/techniques/test_homes.py": "imports of techniques",
    "tests/pages/test_browser.py": "the app in a browser",
    "tests/pages/test_foreign_requests.py": "foreign requests from a browser",
    "tests/pages/test_hostile_text.py": "untrusted text on every page",
    "tests/pages/test_kinds_of_models.py": "every page for every kind of model",
    "tests/pages/panels/test_every_panel.py": "all panels",
    "tests/pages/panels/test_hostile_names.py": "untrusted names in all panels",
}
# modules that do their work inside a whole, and its test
TESTED_AS_PART = {
    # the models that these trained
    "engine/bundled/digits_cnn.py": "tests/engine/bundled/test_docs_lm.py",
    "engine/bundled/docs_classifier.py": "tests/engine/bundled/test_docs_lm.py",
    "engine/bundled/docs_classifier_further.py": "tests/engine/bundled/test_docs_lm.py",
    "engine/bundled/pretraining.py": "tests/engine/bundled/test_docs_lm.py",
    "engine/models/experts.py": "tests/engine/models/test_unfused_experts.py",
    "engine/models/routed_layers.py": "tests/engine/models/test_unfused_experts.py",
    "engine/pipeline/pruned_writer.py": "tests/engine/techniques/pruning/structured/test_method.py",
    "engine/pipeline/replacement_writer.py": "tests/engine/pipeline/test_steps.py",
    "engine/results/store/parquet.py": "tests/engine/results/store/test_store.py",
    "engine/session/cluster.py": "tests/engine/session/test_session.py",
    "engine/session/local_cluster_host.py": "tests/engine/session/test_session.py",
    "engine/techniques/distillation/distill/distill_run.py": (
        "tests/engine/techniques/distillation/distill/test_method.py"
    ),
    "engine/techniques/training_options.py": "tests/engine/config/test_technique.py",
    "pages/widgets/forms/measure_form.py": "tests/pages/test_pages.py",
    "pages/widgets/forms/technique_form.py": "tests/pages/test_pages.py",
    "pages/widgets/layers/inspect_weight.py": "tests/pages/test_pages.py",
    "pages/widgets/layers/rank_planner.py": "tests/pages/test_pages.py",
    "pages/widgets/layers/what_if.py": "tests/pages/test_pages.py",
    "pages/widgets/runs/run_card.py": "tests/pages/test_pages.py",
    "pages/widgets/runs/ten_times.py": "tests/pages/test_pages.py",
    "pages/widgets/technique_page.py": "tests/pages/test_pages.py",
}


def modules(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((root / package).rglob("*.py"))


def mirrored_test(root: Path, module: Path) -> Path:
    """Path of a module's test; ``__main__`` is tested by test_main.py."""
    place = module.relative_to(root)
    folder, name = place.parent, place.stem.strip("_")
    return root / "tests" / folder / f"test_{folder.name if name == 'init' else name}.py"


def function_lines(module: Path) -> int:
    """Lines inside functions, without docstrings, comments and blank lines."""
    text = module.read_text()
    inside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            inside.update(n for each in body for n in range(each.lineno, each.end_lineno + 1))
    lines = [line.strip() for line in text.splitlines()]
    return sum(bool(lines[n - 1]) and not lines[n - 1].startswith("#") for n in inside)


def stray_tests(root: Path) -> list[str]:
    mirrors = {mirrored_test(root, module) for module in modules(root)}
    tests = sorted((root / "tests").rglob("test_*.py"))
    return [test.relative_to(root).as_posix() for test in tests if test not in mirrors]


def modules_without_test(root: Path) -> list[str]:
    """Modules with more than MOST_UNTESTED lines in functions."""
    return [
        module.relative_to(root).as_posix()
        for module in modules(root)
        if not mirrored_test(root, module).exists() and function_lines(module) > MOST_UNTESTED
    ]


def test_every_test_mirrors_a_module_or_checks_a_whole():
    assert set(stray_tests(ROOT)) == set(WHOLE)


def test_every_module_of_some_length_has_a_test_or_an_exception():
    """Exceptions that are no longer needed fail too."""
    assert set(modules_without_test(ROOT)) == set(TESTED_AS_PART)


def test_tests_of_exceptions_exist():
    assert all((ROOT / test).is_file() for test in TESTED_AS_PART.values())


def test_files_that_are_started_first_exist():
    assert [name for name in LONGEST if not list((ROOT / "tests").rglob(f"{name}.py"))] == []


def test_both_kinds_of_gaps_are_found(tmp_path):
    long = "def f(x):\n" + "    x += 1\n" * (MOST_UNTESTED + 1)
    files = {
        "engine/tested.py": long,
        "engine/untested.py": long,
        "engine/constants.py": "X = 1\n" * 200,
        "engine/package/__init__.py": long,
        "tests/engine/test_tested.py": "",
        "tests/engine/package/test_package.py": "",
        "tests/engine/test_stray.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert modules_without_test(tmp_path) == ["engine/untested.py"]
    assert stray_tests(tmp_path) == ["tests/engine/test_stray.py"]
