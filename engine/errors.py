"""What went wrong, in one sentence a person can act on."""

from pydantic import ValidationError


class PlainError(ValueError):
    """Its text is a whole sentence: what was given, what is allowed, what to do next. Shown as it is."""


class Cancelled(PlainError):
    """A person asked the run to stop."""


def refusal(error: ValidationError) -> PlainError:
    """The first thing wrong in a recipe or form, as a sentence."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the recipe"
    given = first.get("input")
    shown = f" (given: {str(given)[:80]!r})" if isinstance(given, str | int | float) and first["type"] != "missing" else ""
    allowed = first["msg"].removeprefix("Value error, ").rstrip(".")
    allowed = allowed[:1].lower() + allowed[1:] if allowed[1:2].islower() else allowed
    return PlainError(f"{place}: {allowed}{shown}.")
