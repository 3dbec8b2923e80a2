"""Colors can be seen on both backgrounds and told apart by everybody."""

from itertools import combinations

import numpy as np

from pages.panels import theme
from tests.cases import for_each

MEANINGS = {
    name: getattr(theme, name)
    for name in ("ORIGINAL", "COMPRESSED", "ERROR", "HIGHLIGHT", "REFERENCE")
}
MEET = [
    ("ORIGINAL", "COMPRESSED"),
    ("ERROR", "HIGHLIGHT"),
    ("ORIGINAL", "HIGHLIGHT"),
    ("ORIGINAL", "REFERENCE"),
    ("COMPRESSED", "REFERENCE"),
]
# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB
BLINDNESS = {
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def linear(color: str) -> np.ndarray:
    shares = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast ratio, 1 to 21."""
    bright, dark = sorted(
        (linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other)), reverse=True
    )
    return (bright + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ rgb.clip(0, 1)
        / [0.9505, 1, 1.089]
    )
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@for_each("background", ["#ffffff", "#0e1117"])
@for_each("color", sorted({*MEANINGS.values(), *theme.SERIES}))
def test_colors_stand_out_on_both_backgrounds(color, background):
    assert contrast(color, background) >= 3


def test_text_on_a_tile_is_readable():
    assert all(
        contrast(theme.TEXT_ON_COLOR, tile) >= 4.5 for tile in (theme.ORIGINAL, theme.REFERENCE)
    )


@for_each("blindness", BLINDNESS)
@for_each("pair", MEET)
def test_colors_that_meet_in_a_figure_stay_apart_for_color_blind_eyes(pair, blindness):
    seen = [lab(np.array(BLINDNESS[blindness]) @ linear(MEANINGS[name])) for name in pair]
    assert np.linalg.norm(seen[0] - seen[1]) > 20


def test_runs_never_share_color_and_symbol():
    assert all(a != b for a, b in combinations(zip(theme.SERIES, theme.SYMBOLS, strict=True), 2))


def test_translucent_keeps_the_color():
    assert theme.translucent("#010203", 0.5) == "rgba(1, 2, 3, 0.5)"
