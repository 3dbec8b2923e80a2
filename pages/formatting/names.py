"""Layer names and labels that fit an axis. They come from untrusted files, so they are escaped."""

from collections.abc import Iterable
from html import escape
from itertools import takewhile
from textwrap import wrap
from typing import Any

LONGEST_ON_AXIS = 26
LONGEST_LABEL = 32


def plotly_text(name: str) -> str:
    """Escape a name for Plotly, which interprets some HTML tags and, with MathJax, formulas between
    dollar signs.
    """
    return escape(name, quote=False).replace("$", "&#36;")


def short_layer_name(name: str, longest: int = LONGEST_ON_AXIS) -> str:
    """Shortened name of a layer that keeps its end, from a dot if possible: "…2.mlp.down_proj"."""
    if len(name) <= longest:
        return plotly_text(name)
    end = name[1 - longest :]
    return plotly_text("…" + (end.partition(".")[2] or end))


def short_label(label: str, longest: int = LONGEST_LABEL) -> str:
    """Shortened label of a run that keeps its start: "GPTQ 4-bit, groups of 32…"."""
    return plotly_text(label if len(label) <= longest else label[: longest - 1] + "…")


def multiline_label(label: str, width: int = 44) -> str:
    return "<br>".join(plotly_text(line) for line in wrap(label, width))


def layer_axis(names: Iterable[str]) -> dict[str, Any]:
    """Settings of a vertical category axis, first name on top, that shows shortened names and keeps
    the full ones as categories.
    """
    names = list(names)
    shared = common_prefix(names)
    ends = [len(names) - 0.5, -0.5]
    return {
        "range": ends,
        "type": "category",
        "tickmode": "array",
        "tickvals": names,
        "ticktext": [short_layer_name(n.removeprefix(shared)) for n in names],
        "categoryarray": names,
    }


def common_prefix(names: list[str]) -> str:
    """Common beginning of all names up to a dot, such as "model.layers."; empty for a single
    name.
    """
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return (
        "".join(f"{words[0]}." for words in takewhile(lambda words: len(set(words)) == 1, columns))
        if len(names) > 1
        else ""
    )
