"""Untrusted text is escaped so that Markdown shows it as it was written."""

import re

import pytest

from pages.widgets.safe_text import JOINER, literal_markdown
from tests.cases import for_each
from tests.pages.hostile import ACTS, HOSTILE


def test_escaped_text_reads_as_it_was_written():
    plain = literal_markdown(HOSTILE).replace("\\", "").replace(JOINER, "")
    assert plain == HOSTILE and not ACTS.search(literal_markdown(HOSTILE))


@for_each(
    ("text", "shown"),
    [
        ("model.layers.0.mlp", "model.layers.0.mlp"),
        ("1. first", r"1\. first"),
        ("a\n\n# b\tc", r"a \# b c"),
        ("a\n===", r"a \=\=\="),
        ("    code", "code"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        ("\x00\x1b[31m", r"\[31m"),
        ("a\u202eb", "a\ufffdb"),
        ("\udcff", "\ufffd"),
        ("", ""),
        (None, "None"),
        ("été 😀", "été 😀"),
    ],
)
def test_links_and_icons_are_split(text, shown):
    assert literal_markdown(text) == shown


@for_each(
    "text",
    [
        "_www.foreign.test/a",
        "a@foreign.test",
        "mailto:a@foreign.test",
        "xmpp:a@foreign.test/b",
        "HTTP://foreign.test",
    ],
)
def test_no_address_is_left_in_one_piece(text):
    """GitHub's rules for links without brackets: www., a scheme, or a name before an @."""
    shown = literal_markdown(text).replace("\\", "")
    assert (
        not re.search(r"www\.|://\w|[\w.+-]@\w|(mailto|xmpp):\w", shown, re.IGNORECASE)
        and shown.replace(JOINER, "") == text
    )


def test_commonmark_sees_text_alone():
    """According to markdown-it, with tables, strikethrough and linkify."""
    reference = pytest.importorskip("markdown_it")
    reader = reference.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    texts = (
        HOSTILE,
        "1) a",
        "- a",
        "+ b",
        "* c",
        "| a |\n|---|\n| b |",
        "a  \nb",
        "\\*a\\*",
        "<!-- x -->",
        "<http://a.b>",
        "[a]: http://b",
        "```\nx",
    )
    for text in texts:
        tokens = reader.parse(literal_markdown(text))
        assert [token.type for token in tokens] == [
            "paragraph_open",
            "inline",
            "paragraph_close",
        ], text
        assert {child.type for child in tokens[1].children} <= {"text", "text_special"}, text
        shown = "".join(child.content for child in tokens[1].children).replace(JOINER, "")
        assert shown.split() == text.split()
