"""A technique has one home: modules elsewhere know none by its config or name, and the homes depend
on each other in one direction.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

from engine.config.registry import TECHNIQUES
from engine.config.technique import Family

ROOT = Path(__file__).parents[3]
# modules about one technique, with the reason
ABOUT_ONE = {
    "engine/interactive/rank_planner.py": "plans the ranks of SVD for a budget",
}
# texts that are equal to the name of a technique or family but mean something else
OTHER_MEANINGS = {
    ("engine/errors.py", "training"): "section of a recipe",
    ("engine/models/layer_kinds.py", "training"): "attribute of modules",
    ("engine/pipeline/layer_report.py", "magnitude"): "column of InputRow",
    ("engine/runtime/worker_setup.py", "bitsandbytes"): "Python package",
    ("engine/tensors/lookup_table.py", "ternary"): "format of a stored weight",
    ("pages/panels/layers/salience.py", "activations"): "value of SalienceRow.kept_by",
    ("pages/panels/layers/salience.py", "random"): "value of SalienceRow.kept_by",
    ("pages/panels/layers/salient_channels.py", "magnitude"): "column of InputRow",
}


def imports_of(path: Path) -> Iterator[str]:
    """Modules that a file imports, with the names it takes from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def homes_imported(path: Path) -> list[str]:
    """Modules in folders of techniques that a file imports: engine.techniques.FAMILY.NAME."""
    homes = {f"{cls.__module__.rpartition('.')[0]}." for cls in TECHNIQUES.values()}
    return [name for name in imports_of(path) if any(name.startswith(home) for home in homes)]


def outside() -> list[str]:
    """Python files of the app that lie in no family of techniques."""
    paths = [ROOT / "app.py", *(ROOT / "engine").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]
    names = (path.relative_to(ROOT) for path in paths)
    return [
        str(name)
        for name in names
        if name.parts[:2] != ("engine", "techniques") or len(name.parts) < 4
    ]


def test_only_modules_about_one_technique_import_from_its_folder():
    assert {name for name in outside() if homes_imported(ROOT / name)} == set(ABOUT_ONE)


@pytest.mark.parametrize(
    "line",
    [
        "from engine.techniques.quantization.gptq.config import GPTQ",
        "from engine.techniques.quantization.gptq import config",
        "import engine.techniques.low_rank.svd.method",
    ],
)
def test_an_import_from_a_folder_is_found_in_any_form(line, tmp_path):
    (tmp_path / "module.py").write_text(f"def late():\n    {line}\n")
    assert homes_imported(tmp_path / "module.py")


def test_shared_modules_and_hooks_are_no_technique(tmp_path):
    (tmp_path / "module.py").write_text("from engine.techniques.hooks import compress\n")
    assert not homes_imported(tmp_path / "module.py")


# --- names ----------------------------------------------------------------------------------------


def names_compared(path: Path) -> set[str]:
    """Names of techniques that a file compares with or has as keys of a dict, and names of families
    that it compares with.
    """
    techniques, families = set(TECHNIQUES), set(get_args(Family))
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            found |= texts_in(node.left, *node.comparators) & (techniques | families)
        elif isinstance(node, ast.MatchValue):
            found |= texts_in(node.value) & (techniques | families)
        elif isinstance(node, ast.Dict):
            found |= texts_in(*filter(None, node.keys)) & techniques
    return found


def texts_in(*nodes: ast.expr) -> set[str]:
    """Literal texts among expressions and in literal collections."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            found |= texts_in(*node.elts)
    return found


def test_no_module_elsewhere_decides_by_the_name_of_a_technique_or_family():
    found = {(name, text) for name in outside() for text in names_compared(ROOT / name)}
    assert found == set(OTHER_MEANINGS)


@pytest.mark.parametrize(
    "line",
    [
        'if step["technique"] == "gptq": pass',
        'if name in ("awq", "svd"): pass',
        'if config.family != "pruning": pass',
        'panels = {"distill": 1}',
        'match name:\n    case "lora" | "qlora": pass',
    ],
)
def test_a_decision_by_a_name_is_found_in_any_form(line, tmp_path):
    (tmp_path / "module.py").write_text(line)
    assert names_compared(tmp_path / "module.py")


def test_other_texts_and_titles_of_families_are_no_decision(tmp_path):
    (tmp_path / "module.py").write_text('titles = {"pruning": "Prune"}\nif kind == "head": pass')
    assert not names_compared(tmp_path / "module.py")


# --- circles --------------------------------------------------------------------------------------


def homes_of(modules: dict[str, Path]) -> dict[str, str]:
    """Home of each module: the folder of its technique; a shared module is its own."""
    folders = {cls.__module__.rpartition(".")[0] for cls in TECHNIQUES.values()}
    return {
        name: next((folder for folder in folders if name.startswith(f"{folder}.")), name)
        for name in modules
    }


def home_graph(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Homes that the modules of each home import, other than itself."""
    homes = homes_of(modules)
    graph: dict[str, set[str]] = {home: set() for home in homes.values()}
    for name, path in modules.items():
        for imported in imports_of(path):
            module = imported if imported in homes else imported.rpartition(".")[0]
            if homes.get(module, homes[name]) != homes[name]:
                graph[homes[name]].add(homes[module])
    return graph


def module_paths() -> dict[str, Path]:
    """Modules below engine/techniques by name."""
    paths = (ROOT / "engine" / "techniques").rglob("*.py")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def test_the_homes_of_techniques_import_each_other_without_circles():
    assert list(TopologicalSorter(home_graph(module_paths())).static_order())


def test_a_circle_of_two_homes_is_found(tmp_path):
    gptq, shared = "engine.techniques.quantization.gptq", "engine.techniques.quantization.grid"
    names = {"a": f"{gptq}.config", "b": f"{gptq}.method", "c": shared}
    modules = {name: tmp_path / file for file, name in names.items()}
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text(f"from {shared} import Levels")
    (tmp_path / "c").write_text(f"from {gptq} import config")
    with pytest.raises(CycleError):
        list(TopologicalSorter(home_graph(modules)).static_order())
