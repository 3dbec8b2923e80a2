"""The examples that a student gets wrong, on the screen."""

from streamlit.testing.v1 import AppTest

MARKUP = "<img src=x onerror=alert(1)> **bold**"


def page(kind: str, text: str) -> None:
    import pandas as pd

    from engine.recipe import Recipe
    from pages.widgets.runs.student_errors import mistakes_table

    rows = [
        {
            "label": text,
            "teacher": 0.9,
            "answer": text,
            "student": 0.8,
            "text": f"{'before ' * 20}\n{text}",
            "picture": "data:image/png;base64,",
        }
    ]
    mistakes_table(
        pd.DataFrame(rows[: len(text)]), Recipe.from_dict({"task": {"kind": kind}}).task, "here"
    )


def mistakes_page(kind: str, text: str = MARKUP) -> AppTest:
    app = AppTest.from_function(page, args=(kind, text)).run(timeout=30)
    assert not app.exception
    return app


def test_markup_in_an_example_is_shown_as_text():
    """A table's cells are drawn, not laid out; nothing of an example stands outside them."""
    app = mistakes_page("text-classification")
    (row,) = app.dataframe[0].value.to_dict("records")
    assert row["label"] == row["answer"] == MARKUP and row["text"].endswith(f"↵{MARKUP}")
    assert not any("img" in each.value for each in [*app.markdown, *app.caption])


def test_text_mistakes_show_the_end_of_the_context():
    (row,) = mistakes_page("language-modeling").dataframe[0].value.to_dict("records")
    assert row["text"] == f"…{('before ' * 20 + '↵' + MARKUP)[-44:]}" and "picture" not in row


def test_image_mistakes_show_the_image():
    (row,) = mistakes_page("image-classification").dataframe[0].value.to_dict("records")
    assert row["picture"].startswith("data:") and "text" not in row


def test_a_student_without_mistakes_gives_a_message():
    app = mistakes_page("text-classification", "")
    assert (
        not app.dataframe
        and app.caption[0].value == "The student has no mistake that its teacher avoids."
    )
