"""Links, commands and recipes in README.md, CONTRIBUTING.md and docs/ are valid."""

import re
from pathlib import Path

import pytest

from engine.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
README_LINES = 90


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


def test_relative_links_lead_to_files():
    links = [
        (document, link) for document in DOCUMENTS for link in LINK.findall(document.read_text())
    ]
    relative = [(document, link) for document, link in links if "://" not in link]
    missing = [
        (document.name, link)
        for document, link in relative
        if not (document.parent / link).exists()
    ]
    assert len(relative) > 20 and missing == []


@pytest.mark.parametrize("marker", ["dashboard", "tests"])
def test_the_readme_marks_the_commands_that_are_run_from_it(marker):
    text = (ROOT / "README.md").read_text()
    (command,) = re.findall(rf"^<!-- {marker} -->\n```bash\n(.*)\n```$", text, re.M)
    requirements = re.findall(r"-r (\S+)", command)
    assert requirements and all((ROOT / file).is_file() for file in requirements)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_every_document_is_linked_from_the_readme():
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


def test_recipes_in_the_documents_are_valid():
    # test_contributing.py runs the one in CONTRIBUTING.md, whose technique it adds
    documents = [document for document in DOCUMENTS if document.name != "CONTRIBUTING.md"]
    recipes = [text for document in documents for text in blocks(document, "yaml")]
    assert recipes
    for text in recipes:
        assert Recipe.from_yaml(text).steps
