"""Errors with a one-sentence message that users can act on."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError


class PlainError(ValueError):
    """The message is one sentence that states what was given, what is allowed and what to do next.
    It is shown unchanged.
    """


class Cancelled(PlainError):
    """The user stopped a run."""


def plain_error(error: ValidationError, model: type[BaseModel] | None = None) -> PlainError:
    """Sentence about the first error in a recipe or form. ``model`` is the class that raised it;
    with it, the sentence names the allowed values.
    """
    first = error.errors(include_url=False)[0]
    schema = schema_of(model) if model else {}
    sentence = problem_description(first, schema)
    where = (
        location(first["loc"][:-1], schema) or subject(model)
        if is_unknown_key(first)
        else location(first["loc"], schema)
    )
    return PlainError(
        f"{where}: {sentence}." if where else f"{sentence[:1].upper()}{sentence[1:]}."
    )


@cache
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of a class, cached because a recipe's takes 50 ms."""
    return model.model_json_schema()


def is_unknown_key(problem: Mapping[str, Any]) -> bool:
    return problem["type"] in ("extra_forbidden", "invalid_key")


def problem_description(wrong: Mapping[str, Any], schema: dict[str, Any]) -> str:
    """Return what is wrong and what would be valid, without the location."""
    loc, kind, field_schema = wrong["loc"], wrong["type"], schema_at(schema, wrong["loc"])
    if is_unknown_key(wrong):
        return no_such_option(loc[-1], schema_at(schema, loc[:-1]).get("properties", {}))
    if kind == "union_tag_invalid":
        return no_such_tag(wrong["ctx"], wrong["input"], field_schema)
    if kind == "union_tag_not_found":
        return (
            f"{wrong['ctx']['discriminator'].strip(chr(39))} is missing; give "
            f"{one_of(union_tags(field_schema) or ['one'])}"
        )
    if kind in ("value_error", "assertion_error") or not allowed_values(field_schema):
        return validator_message(wrong["msg"])
    problem = (
        "it is missing" if kind == "missing" else f"{value_text(wrong['input'])} is not allowed"
    )
    return f"{problem}; give {allowed_values(field_schema)}"


def no_such_option(key: Any, options: Mapping[str, Any]) -> str:
    listed = f"; the options are {', '.join(options)}" if options else "; remove it"
    return f"there is no option {value_text(key)}{suggestion(key, options)}{listed}"


def no_such_tag(context: Mapping[str, str], holder: Any, schema: dict[str, Any]) -> str:
    name = context["discriminator"].strip("'")
    value = holder.get(name) if isinstance(holder, dict) else context["tag"]
    tags = union_tags(schema) or [tag.strip("' ") for tag in context["expected_tags"].split(",")]
    return (
        f"{value_text(value)} is not a known {name}{suggestion(value, tags)}; give {one_of(tags)}"
    )


def suggestion(word: Any, allowed: Iterable[str]) -> str:
    close = (
        get_close_matches(str(word)[:80].lower(), list(allowed), 1) if isinstance(word, str) else []
    )
    return f" (did you mean {close[0]}?)" if close else ""


def validator_message(message: str) -> str:
    """Validator message reworded to follow a colon."""
    words = (
        message.removeprefix("Value error, ")
        .removeprefix("Assertion failed, ")
        .replace("Input should", "it should")
        .rstrip(".")
    )
    first_word = words.partition(" ")[0]  # names such as SparseGPT stay as they are
    return words[:1].lower() + words[1:] if first_word[1:].islower() else words


# --- where ----------------------------------------------------------------------------------------


def option_name(model: BaseModel | type[BaseModel], key: str) -> str:
    """Label of a field in the forms, and its key in a recipe: ``Bits (bits)`` for an option of a
    step, ``Maximum length (task.length)`` for a field of a section.
    """
    model = model if isinstance(model, type) else type(model)
    section = getattr(model, "section", "")
    return labeled_key(field_title(model, key), f"{section}.{key}" if section else key)


def field_title(model: type[BaseModel], key: str) -> str:
    """Label of a field in the forms."""
    return model.model_fields[key].title or key


def labeled_key(title: str, key: str) -> str:
    """Return a field's title, without a note in parentheses such as its unit, and its key."""
    return f"{re.sub(r' [(][^()]*[)]$', '', title)} ({key})"


def location(loc: tuple[int | str, ...], schema: dict[str, Any]) -> str:
    """Return the location in the recipe for users, such as ``Step 1, Bits (bits)``; empty for the
    whole recipe. The member of a union is omitted.
    """
    match loc:
        case ("steps", int(index), _, str(key), *rest):
            words = [f"Step {index + 1}", field_name(loc[:3], key, schema), *rest]
        case ("steps", int(index), *_):
            words = [f"Step {index + 1}"]
        case ("task", _, str(key), *rest):
            words = [field_name(loc[:2], key, schema, "task."), *rest]
        case ("task", *_):
            words = ["Task"]
        case ("calibration" | "training" | "layers" as section, str(key), *rest):
            words = [field_name(loc[:1], key, schema, f"{section}."), *rest]
        case (str(key), *rest):
            words = [key.capitalize(), *rest]
        case _:
            words = list(loc)
    return ", ".join(f"item {word + 1}" if isinstance(word, int) else word for word in words)


def field_name(
    parent: tuple[int | str, ...], key: str, schema: dict[str, Any], section: str = ""
) -> str:
    """Label and key of a field by the schema of its parent; only the key without one."""
    field_schema = schema_at(schema, parent).get("properties", {}).get(key, {})
    title = field_schema.get("title")
    return labeled_key(title, section + key) if title else section + key


def subject(model: type[BaseModel] | None) -> str:
    return getattr(model, "title", f"The {model.__name__.lower()}") if model else "The recipe"


# --- what was given -------------------------------------------------------------------------------


def value_text(value: Any) -> str:
    """A value as users write it, short and on one line."""
    match value:
        case None | "":
            return "an empty value"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 60 else f"{value[:60]}...")
        case int() if abs(value) >= 10**18:
            return "a number this large"  # Python refuses to print very large integers
        case int() | float():
            return str(value)
    return (
        "a list"
        if isinstance(value, list | tuple)
        else "a mapping"
        if isinstance(value, dict)
        else f"a {type(value).__name__}"
    )


# --- what is allowed: read from the JSON schema, so that it cannot drift from what is checked -----

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "a mapping",
}
BOUNDS = {
    "minimum": "of at least",
    "exclusiveMinimum": "above",
    "maximum": "of at most",
    "exclusiveMaximum": "below",
}


def allowed_values(schema: dict[str, Any]) -> str:
    """Describe the values that the schema allows; empty if there is no description."""
    if "enum" in schema or "const" in schema:
        return one_of(schema.get("enum") or [schema["const"]])
    if union_tags(schema):
        return (
            f"a mapping such as {{{schema['discriminator']['propertyName']}: "
            f"{union_tags(schema)[0]}}}"
        )
    if schema.get("properties"):
        return f"a mapping with keys such as {', '.join(list(schema['properties'])[:3])}"
    return f"{KINDS[schema['type']]}{bounds_text(schema)}" if schema.get("type") in KINDS else ""


def bounds_text(schema: dict[str, Any]) -> str:
    match schema["type"]:
        case "integer" | "number":
            return number_bounds(schema)
        case "string":
            return length_bounds(schema.get("minLength", 0), schema.get("maxLength"), "characters")
        case "array":
            return length_bounds(schema.get("minItems", 0), schema.get("maxItems"), "items")
    return ""


def number_bounds(schema: dict[str, Any]) -> str:
    """`` from 2 to 8``, `` above 0``: the bounds of a number in words."""
    bounds = closed_bounds(schema) if schema["type"] == "integer" else schema
    if "minimum" in bounds and "maximum" in bounds:
        return f" from {bounds['minimum']:.15g} to {bounds['maximum']:.15g}"
    words = [f"{word} {bounds[name]:.15g}" for name, word in BOUNDS.items() if name in bounds]
    return f" {' and '.join(words)}" if words else ""


def closed_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Between whole numbers, an open bound equals the next closed one."""
    bounds: dict[str, Any] = {
        name: schema[name] for name in ("minimum", "maximum") if name in schema
    }
    if "exclusiveMinimum" in schema:
        bounds["minimum"] = schema["exclusiveMinimum"] + 1
    if "exclusiveMaximum" in schema:
        bounds["maximum"] = schema["exclusiveMaximum"] - 1
    return bounds


def length_bounds(minimum: int, maximum: int | None, unit: str) -> str:
    """`` of 1 to 80 characters``, `` that is not empty``: the bounds of a text or list in words."""
    if maximum is not None:
        return f" of {minimum} to {maximum} {unit}"
    return (
        " that is not empty"
        if minimum == 1
        else f" of at least {minimum} {unit}"
        if minimum
        else ""
    )


def one_of(choices: Iterable[Any]) -> str:
    *first, last = [str(choice) for choice in choices]
    return f"{', '.join(first)} or {last}" if first else last


def union_tags(schema: dict[str, Any]) -> list[str]:
    """Names of the members of a union."""
    return list(schema.get("discriminator", {}).get("mapping", {}))


def schema_at(root: dict[str, Any], loc: tuple[int | str, ...]) -> dict[str, Any]:
    """Schema at one location; empty if there is none."""
    current = resolved_schema(root, root)
    for part in loc:
        current = resolved_schema(schema_of_part(current, part), root)
    return current


def schema_of_part(schema: dict[str, Any], part: int | str) -> dict[str, Any]:
    if union_tags(schema):
        return {"$ref": schema["discriminator"]["mapping"].get(part, "")}
    return (
        schema.get("items", {})
        if isinstance(part, int)
        else schema.get("properties", {}).get(part, {})
    )


def resolved_schema(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Schema behind a reference, or behind a union with null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return resolved_schema(choices[0], root)
    return (
        root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
        if "$ref" in schema
        else schema
    )
