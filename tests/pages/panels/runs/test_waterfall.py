import pytest

from pages.panels.runs.waterfall import WATERFALL, text_positions, waterfall
from pages.panels.theme import COMPRESSED, ORIGINAL
from tests.pages.panels import tables


def bars(figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


def test_what_is_left_and_what_a_step_removed_are_together_what_it_began_with():
    figure = waterfall(tables.steps())
    left, gone = bars(figure, "Left"), bars(figure, "Removed by the step")
    assert list(left.x) == [8.0, 6.0, 6.3, 3.15] and list(left.marker.color) == [
        ORIGINAL,
        *[COMPRESSED] * 3,
    ]
    # the second step added
    assert [base + more for base, more in zip(gone.base, gone.x, strict=True)] == pytest.approx(
        [8.0, 8.0, 6.3, 6.3]
    )


def test_the_share_is_written_in_the_bar_with_its_sign():
    assert list(bars(waterfall(tables.steps()), "Left").text) == [
        "8.0 MB",
        "6.0 MB (-25.0%)",
        "6.3 MB (+5.0%)",
        "3.1 MB (-50.0%)",
    ]


@pytest.mark.parametrize(("quality", "written"), [("accuracy", "90.0%"), ("perplexity", "12")])
def test_quality_has_a_line_for_each_split_and_numbers_for_the_first(quality, written):
    lines = [
        trace
        for trace in waterfall(tables.steps("test", "validation", quality=quality)).data
        if trace.xaxis == "x2"
    ]
    assert [line.name for line in lines] == ["Test", "Validation"] and [
        ("text" in line.mode) for line in lines
    ] == [True, False]
    assert all(list(line.y) == [0, 1, 2, 3] for line in lines) and lines[0].text[0] == written


def test_numbers_stand_where_the_line_does_not_go():
    assert text_positions([1, 2, 3, 2, 1, 2, 2]) == [
        "top center",
        "bottom left",
        "middle right",
        "top left",
        "middle left",
        "bottom left",
        "bottom center",
    ]
    assert text_positions([1.0]) == ["top center"]


def test_a_step_is_named_above_its_bar_and_never_read_as_markup():
    said = [note.text for note in waterfall(tables.steps()).layout.annotations]
    assert (
        said[0] == "Original"
        and said[1].startswith("1 · Magnitude")
        and said[3].startswith("3 · &lt;b&gt;GPTQ")
    )


def test_the_description_names_both_ends():
    assert "In 3 steps from 8.0 MB to 3.1 MB, accuracy from 90.0% to 87.0%." in WATERFALL.alt(
        tables.steps()
    )


def test_under_the_pointer_both_bits_are_named():
    words = [
        text
        for trace in waterfall(tables.steps()).data
        if trace.hovertext
        for text in trace.hovertext
    ]
    assert words and all(
        "bits per parameter" in text and "4.50 per compressed weight" in text for text in words
    )
