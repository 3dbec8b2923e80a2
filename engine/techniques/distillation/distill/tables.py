"""Table and view of the outputs of a black-box teacher."""

from dataclasses import dataclass

from engine.results.schema.declaration import ResultView, run_table


@run_table("written")
@dataclass(frozen=True)
class WrittenRow:
    """Text or label from a black-box teacher for its student."""

    # from the training text; for a classifier the text itself, or the number of an image
    prompt: str
    continuation: str  # the teacher's; for a classifier the label it chose


WRITTEN_VIEW = ResultView(
    "Written", WrittenRow, position=70, draw="pages.widgets.runs.teacher_texts:teacher_texts"
)
