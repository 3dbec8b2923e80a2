"""Escaping of text from files, addresses and users for Streamlit's Markdown."""

import re

# Every character with a meaning in CommonMark, GitHub's extensions, math or Streamlit's directives.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+\-!|$~:=&^])")
LIST_NUMBER = re.compile(r"^(\d+)\.")  # "1." at the start would be a list
# Streamlit replaces addresses by links and names in colons by icons after parsing, where a
# backslash has no effect. An invisible word joiner prevents that.
LINKED = re.compile(r"(?<=://)|(?<=www)(?=\.)|(?=@)|(?<=mailto:)|(?<=xmpp:)", re.IGNORECASE)
ICONS = re.compile(r"(?<=:)(?=material[/_]|streamlit:)")
JOINER = "\N{WORD JOINER}"
# line feeds and other control characters
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# change of text direction; lone surrogates
MISLEADING = re.compile(r"[\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def literal_markdown(text: object) -> str:
    """Return the text as one line of Markdown that shows it literally.

    Use it in every element and label whose text is not the app's own. Source: CommonMark 0.31,
    section 2.4 (backslash escapes); Streamlit's Markdown plugins for icons, colors and typography.
    """
    line = MISLEADING.sub("\N{REPLACEMENT CHARACTER}", CONTROL.sub(" ", str(text))).strip()
    joined = ICONS.sub(JOINER, LINKED.sub(JOINER, line))
    return LIST_NUMBER.sub(r"\1\\.", SPECIAL.sub(r"\\\1", joined))
