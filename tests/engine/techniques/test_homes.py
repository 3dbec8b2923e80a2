"""A technique has one home: modules elsewhere know none by its config."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config.registry import TECHNIQUES

ROOT = Path(__file__).parents[3]
# modules about one technique, with the reason
ABOUT_ONE = {
    "engine/interactive/rank_planner.py": "plans the ranks of SVD for a budget",
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
