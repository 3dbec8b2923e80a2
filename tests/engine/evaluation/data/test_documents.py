"""Documentation texts of source files."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.evaluation.data.documents import (
    SHORTEST,
    Document,
    docstrings,
    fingerprint,
    source_files,
    unique_documents,
)

LONG = "Return the sum of all values along an axis, or of the whole array where no axis is given."


def document(text: str, file: str = "a.py") -> Document:
    return Document("numpy", file, text)


def test_triple_quoted_texts_that_begin_a_line_are_read_whatever_their_quotes():
    source = (
        f'def f():\n    r"""{LONG}\n\n    More.\n    """\n'
        f"class C:\n    '''{LONG}'''\n"
        f'x = """{LONG}"""\n'
        f'def g():\n    """{LONG[: SHORTEST - 1]}"""\n'
    )
    assert list(docstrings(source)) == [f"{LONG}\n\nMore.", LONG]


def test_a_text_whose_lines_are_known_is_dropped_also_with_other_digits():
    first, other = LONG, "Something else entirely, which nobody has said in these words before."
    texts = [
        first,
        first.replace("sum", "sum 2.0!"),
        other,
        f"{first}\n{other}",
        f"{other}\n{LONG}",
    ]
    kept = [each.text for each in unique_documents(map(document, texts))]
    assert kept == [first, other]


@given(st.lists(st.text(max_size=5), max_size=5))
def test_a_fingerprint_changes_with_any_text_and_with_where_it_ends(texts):
    assert fingerprint(texts) == fingerprint(list(texts))
    assert fingerprint([*texts, "a"]) != fingerprint(texts)
    assert fingerprint(["ab", *texts]) != fingerprint(["a", "b", *texts])


def test_splits_follow_the_file_alone_in_shares_of_a_twentieth():
    files = [f"package/module_{number}.py" for number in range(20_000)]
    counts = Counter(document("x", file).split for file in files)
    shares = {"train": 14, "unlabelled": 4, "calibration": 1, "evaluation": 1}
    for split, share in shares.items():
        assert abs(counts[split] / len(files) - share / 20) < 0.01
    assert document("one", "a.py").split == document("another", "a.py").split


def test_tests_of_a_package_are_not_its_documentation():
    files = source_files("numpy")
    assert files and not any("tests" in path.parts for path in files)
    assert source_files("no_such_package_at_all") == []
