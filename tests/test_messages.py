"""No code reads its own sentences again: what a program needs to know travels in fields."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARSERS = {
    *("startswith", "endswith", "removeprefix", "removesuffix", "find", "replace"),
    *("split", "rsplit", "partition", "rpartition", "splitlines"),
    *("match", "fullmatch", "search", "sub", "findall", "finditer", "compile"),
}
# names and attributes that hold sentences for the user
COLLECTIONS = (ast.Tuple, ast.List, ast.Set, ast.Dict)
SENTENCES = {"message", "note", "phrase", "sentence", "stage", "title"}
# where a library's message or text from outside is read, because the library gives no fields
FOREIGN = {
    "engine/errors.py": "pydantic",
    "engine/evaluation/data/sources.py": "datasets",
    "engine/evaluation/data/text_files.py": "the operating system",
    "engine/kernels/kernel.py": "torch",
    "engine/models/loading.py": "transformers and torch",
    "engine/results/store/run_folder.py": "pydantic",
    "engine/session/cluster.py": "Python, about a missing module",
    "engine/session/worker_tasks.py": "torch, about memory",
    "engine/training/loop.py": "torch, about memory",
}


def parsed_sentences(source: str) -> Iterator[str]:
    """Expressions that take a sentence apart, or look for a piece of English in a text."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=receiver, attr=name)) if name in PARSERS:
                literals = [text for argument in node.args for text in texts_in(argument)]
                holders = [receiver, *node.args] if is_regex(receiver) else [receiver]
                if any(map(is_english, literals)) or any(map(is_sentence, holders)):
                    yield ast.unparse(node)
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn()], comparators=[right]):
                english = any(len(words_in(text)) > 1 for text in texts_in(left))
                if is_sentence(right) or (english and not isinstance(right, COLLECTIONS)):
                    yield ast.unparse(node)
            case ast.Subscript(value=value) if is_error_text(value) and not is_shortened(node):
                yield ast.unparse(node)


def texts_in(node: ast.AST) -> list[str]:
    """String literals of an argument, alone or in a tuple."""
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return [
        part.value
        for part in parts
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def is_english(text: str) -> bool:
    """A capitalized word, several words, or the dot between parts of a sentence."""
    words = words_in(text)
    capitalized = len(words) == 1 and words[0] == text and text.istitle() and len(text) > 3
    return " · " in text or len(words) > 1 or capitalized


def words_in(text: str) -> list[str]:
    return [word for word in (part.strip(",.:;()") for part in text.split()) if word.isalpha()]


def is_sentence(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in SENTENCES
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in SENTENCES
    return is_error_text(node)


def is_error_text(node: ast.AST) -> bool:
    """``str(error)``, possibly shortened."""
    match node:
        case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id="error" | "stop" | "refused")]):
            return True
        case ast.Subscript(value=value):
            return is_error_text(value)
    return False


def is_shortened(node: ast.Subscript) -> bool:
    """A maximum length, such as ``text[:200]``."""
    return isinstance(node.slice, ast.Slice) and node.slice.lower is None


def is_regex(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and (node.id == "re" or node.id.isupper())


def modules() -> list[Path]:
    folders = (ROOT / "engine", ROOT / "pages")
    return [
        path
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        if "bundled" not in path.parts  # makes models from texts that it cuts
    ]


def test_no_module_parses_its_own_sentences():
    found = {
        str(path.relative_to(ROOT)): list(parsed_sentences(path.read_text(encoding="utf-8")))
        for path in modules()
    }
    found = {path: expressions for path, expressions in found.items() if expressions}
    own = {path: expressions for path, expressions in found.items() if path not in FOREIGN}
    assert not own, "send a field instead of a sentence"
    assert set(FOREIGN) <= set(found), "no longer needed"


@pytest.mark.parametrize(
    "source",
    [
        'stage.partition(" · ")[0]',
        'inner.startswith("Measuring")',
        're.compile(r"Step (\\d+) of (\\d+): ")',
        'ended.partition(", as requested")[0]',
        'str(error).partition(";")[0]',
        "FAILURE.match(message)",
        '"blocks were finished" in record.message',
        '"memory" in str(error)',
        'progress.sentence().split(":")',
        'title.startswith("Weight")',
        "str(error)[4:]",
    ],
)
def test_code_that_takes_a_sentence_apart_is_found(source):
    assert list(parsed_sentences(source)) != []


@pytest.mark.parametrize(
    "source",
    ['name.startswith("model.")', 'text.split(",")', "str(error)[:200]", 'path.endswith(".csv")'],
)
def test_names_and_data_may_be_parsed(source):
    assert list(parsed_sentences(source)) == []
