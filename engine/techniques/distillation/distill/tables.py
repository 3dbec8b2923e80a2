"""Table of what a black-box teacher writes."""

from dataclasses import dataclass

from engine.results.schema.declaration import run_table


@run_table("written")
@dataclass(frozen=True)
class WrittenRow:
    """Text or label from a black-box teacher for its student."""

    # from the training text; of a classifier the text itself, or the number of a picture
    prompt: str
    continuation: str  # the teacher's; of a classifier the label it chose
