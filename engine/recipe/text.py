"""Parsing of recipe text, YAML or JSON, into plain data within fixed limits.

The text is untrusted: an upload, a link or a shell argument. Limits are checked while the parser
runs, before values are built. An alias counts as many values as its anchor contains, so nested
aliases cannot multiply.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.resolver import Resolver

from engine.errors import PlainError
from engine.quantities import megabytes

MAX_BYTES = 64_000  # of the text; recipes have a few thousand
MAX_VALUES = 4096  # mappings, lists, keys and values; a step with all options has about 70
MAX_DEPTH = 12  # nested mappings and lists; recipes have four
MAX_ALIASES = 64
MAX_CHARACTERS = 8192  # per key or value; base-60 numbers take quadratic time

MERGE = "tag:yaml.org,2002:merge"  # of the key <<
# Errors that PyYAML raises for invalid values: March 32, !!bool 3, 5000 digits.
UNREADABLE = (ValueError, ArithmeticError, TypeError, AttributeError, LookupError, RecursionError)


def parse(text: str) -> Any:
    """Return plain data from YAML or JSON.

    Raises PlainError if the text is neither or exceeds a limit.
    """
    check_length(len(text) if text.isascii() else len(text.encode("utf8", "surrogatepass")))
    if text.lstrip()[:1] == "{":
        try:
            return json_data(text)
        except PlainError:
            raise
        except (ValueError, RecursionError):  # YAML's flow style also starts with a brace
            pass
    return yaml_data(text)


def read_file(path: Path) -> str:
    """Return the text of a recipe file.

    Raises PlainError if it cannot be read, is not a regular file, or is too long.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise PlainError(
                f"The recipe {str(path)[:200]!r} is {kind}; give the path of a YAML file."
            )
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except PlainError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a path"
        raise PlainError(
            f"The recipe {str(path)[:200]!r} cannot be read: {reason}; give the path of a YAML "
            "file."
        ) from None
    return decode_recipe(content, f"The recipe {str(path)[:200]!r}")


def decode_recipe(content: bytes, name: str) -> str:
    """Return the text of an uploaded or local recipe; ``name`` starts the message.

    Raises PlainError if it is too long or not UTF-8.
    """
    check_length(len(content))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PlainError(
            f"{name} is not UTF-8 text, so it is not a recipe; save it as UTF-8, or choose "
            "another file."
        ) from None


def check_length(size: int) -> None:
    if size > MAX_BYTES:
        raise PlainError(
            f"The recipe is longer than {megabytes(MAX_BYTES)}; recipes have a few kB. "
            "Shorten it, or choose another file."
        )


def raise_limit_exceeded(kind: str, limit: int) -> None:
    raise PlainError(
        f"The recipe has more than {limit:,} {kind}; shorten it, or split it into several recipes."
    )


# --- JSON ----------------------------------------------------------------------------------------


def json_data(text: str) -> Any:
    """Return plain data from JSON.

    Raises ValueError or RecursionError if the text is not JSON, PlainError for a duplicate key or
    an exceeded limit.
    """
    data = json.loads(text, object_pairs_hook=dict_without_duplicates)
    check_limits(data)
    return data


def dict_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise PlainError(f"The recipe is not valid: {name[:60]!r} is given twice; remove one.")
        seen.add(name)
    return dict(pairs)


def check_limits(data: Any) -> None:
    """Check plain data against the limits.

    Raises PlainError if one is exceeded.
    """
    values, level, depth = 0, [data], 0
    while level:
        keys = sum(len(item) for item in level if isinstance(item, dict))  # they count, as in YAML
        values += len(level) + keys
        if values > MAX_VALUES:
            raise_limit_exceeded("keys and values", MAX_VALUES)
        if depth > MAX_DEPTH:
            raise_limit_exceeded("levels of mappings and lists", MAX_DEPTH)
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        depth += 1


# --- YAML ----------------------------------------------------------------------------------------


def yaml_data(text: str) -> Any:
    loader = None
    try:
        loader = RecipeLoader(text)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise PlainError(f"The recipe is not valid YAML{place}: {problem}.") from None
    except PlainError:
        raise
    except UNREADABLE:
        raise PlainError(
            "The recipe is not valid YAML: a date, number or tag is invalid; put quotes "
            "around text."
        ) from None
    finally:
        if loader:
            loader.dispose()


class YamlEvents:
    """Parser events, from libyaml if PyYAML includes it (ten times as fast)."""

    def __init__(self, text: str):
        parser = yaml.CSafeLoader(text) if yaml.__with_libyaml__ else yaml.SafeLoader(text)
        self.check_event, self.peek_event, self.get_event = (
            parser.check_event,
            parser.peek_event,
            parser.get_event,
        )
        self.dispose = parser.dispose


class RecipeLoader(YamlEvents, Composer, SafeConstructor, Resolver):
    """Safe YAML loader with limits that refuses duplicate keys, of which YAML silently keeps the
    last.

    Raises PlainError as soon as a limit is exceeded.
    """

    def __init__(self, text: str):
        YamlEvents.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self.values, self.depth, self.aliases = 0, 0, 0
        self.sizes: dict[int, int] = {}  # id of a node -> its number of values, aliases expanded

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        before, alias = self.values, self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:
            raise_limit_exceeded("levels of mappings and lists", MAX_DEPTH)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias:
            self.count_alias(node)
        else:
            self.count(1)
            if isinstance(node, yaml.ScalarNode) and len(node.value) > MAX_CHARACTERS:
                raise_limit_exceeded("characters in one value", MAX_CHARACTERS)
            self.sizes[id(node)] = self.values - before
        return node

    def count_alias(self, node: yaml.Node) -> None:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise_limit_exceeded("aliases", MAX_ALIASES)
        if id(node) not in self.sizes:
            raise PlainError(
                "The recipe is not valid: an alias is inside its own anchor; write the value out."
            )
        self.count(self.sizes[id(node)])

    def count(self, values: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise_limit_exceeded("keys and values", MAX_VALUES)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in names:
                    problem = f"{key.value[:60]!r} is given twice"
                    raise ConstructorError(problem=problem, problem_mark=key.start_mark)
                names.add(key.value)
        return node
