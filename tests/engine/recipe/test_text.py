"""Recipe text is parsed within limits, measured in composed values instead of seconds."""

import os
import random
import tracemalloc

import pytest

from engine.errors import PlainError
from engine.recipe import MAX_STEPS, Recipe
from engine.recipe import text as recipe_text
from engine.recipe.text import (
    MAX_ALIASES,
    MAX_BYTES,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_VALUES,
    RecipeLoader,
    decode_recipe,
    parse,
    read_file,
)
from tests.cases import for_each
from tests.hostile_recipes import HOSTILE, nested_lines


@for_each("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_refused_in_one_short_sentence(text):
    with pytest.raises(PlainError) as error:
        Recipe.from_yaml(text)
    assert (
        str(error.value).endswith(".")
        and len(str(error.value)) < 500
        and "\n" not in str(error.value)
    )


def test_reading_a_hostile_text_takes_little_memory():
    tracemalloc.start()
    try:
        for text in HOSTILE.values():
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(PlainError):
                Recipe.from_yaml(text)
            assert tracemalloc.get_traced_memory()[1] - before < 20e6
    finally:
        tracemalloc.stop()


@for_each(
    "name",
    [
        name
        for name in HOSTILE
        if name.startswith(("merge", "alias", "many aliases", "many keys", "many names", "open"))
    ],
)
def test_a_limit_is_found_before_anything_is_built(name, monkeypatch):
    monkeypatch.setattr(RecipeLoader, "construct_document", lambda *given: pytest.fail("built"))
    with pytest.raises(PlainError):
        parse(HOSTILE[name])


def nodes_composed(text: str, monkeypatch) -> int:
    composed = []
    own = RecipeLoader.compose_node
    monkeypatch.setattr(
        RecipeLoader, "compose_node", lambda *given: composed.append(1) or own(*given)
    )
    with pytest.raises(PlainError):
        parse(text)
    return len(composed)


def test_work_does_not_grow_with_how_often_aliases_are_nested(monkeypatch):
    """The expanded tree has 9 ** levels values; each level adds at most one composed line until the
    limit.
    """
    counts = [
        nodes_composed(
            nested_lines("a0: &a0 {k: 1}", "a{0}: &a{0} {{<<: [{1}], x{0}: 1}}", levels),
            monkeypatch,
        )
        for levels in (6, 25)
    ]
    assert counts[0] == counts[1] < MAX_VALUES


def test_work_is_limited_however_long_a_text_is(monkeypatch):
    texts = [
        "\n".join(f"k{number}: 1" for number in range(count))
        for count in (MAX_VALUES // 2 + 1, MAX_VALUES)
    ]
    assert (
        nodes_composed(texts[0], monkeypatch)
        == nodes_composed(texts[1], monkeypatch)
        <= MAX_VALUES + 2
    )


def test_each_key_is_checked_once():
    """Detecting duplicates takes one comparison per key."""

    class Counted(str):
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    recipe_text.dict_without_duplicates([(Counted(f"k{number}"), 1) for number in range(1000)])
    assert Counted.compared < 5000


def test_text_at_the_limit_is_accepted():
    assert (
        len(parse("\n".join(f"k{number}: 1" for number in range(MAX_VALUES // 2 - 1))))
        == MAX_VALUES // 2 - 1
    )
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH) and parse(f"a: {'x' * MAX_CHARACTERS}")
    assert parse("a: &a 1\nb: [" + "*a, " * MAX_ALIASES + "]")["b"] == [1] * MAX_ALIASES
    assert parse("{" + " " * (MAX_BYTES - 2) + "}") == {}
    with pytest.raises(PlainError, match="longer than 64.0 kB"):
        parse("{" + " " * (MAX_BYTES - 1) + "}")


def test_the_longest_recipe_that_is_allowed_can_be_saved_and_opened():
    step = {"technique": "distill"}
    recipe = Recipe.from_dict({"steps": [{"technique": "fine-tune"}] * (MAX_STEPS - 1) + [step]})
    assert (
        Recipe.from_yaml(recipe.to_yaml()) == recipe == Recipe.from_yaml(recipe.model_dump_json())
    )
    with pytest.raises(
        PlainError,
        match=rf"^Steps: {MAX_STEPS + 1} steps are given, and at most {MAX_STEPS} are allowed",
    ):
        Recipe.from_dict({"steps": [{"technique": "fine-tune"}] * (MAX_STEPS + 1)})


def test_merge_keys_and_aliases_work_as_in_any_yaml():
    text = "usual: &usual {technique: gptq, bits: 4}\nsteps:\n- {<<: *usual, bits: 3}\n- *usual"
    assert parse(text)["steps"] == [
        {"technique": "gptq", "bits": 3},
        {"technique": "gptq", "bits": 4},
    ]


def test_json_is_parsed_as_json():
    """YAML 1.1 reads 1e-05 as text."""
    assert parse('{"rate": 1e-05, "text": "a\\ud83d\\ude00"}') == {
        "rate": 1e-05,
        "text": "a\U0001f600",
    }
    assert parse("{rate: 1.0e-05}") == {"rate": 1e-05}  # a mapping in flow style


@for_each(
    "text",
    ['{"seed": 1, "seed": 2}', "{seed: 1, seed: 2}", "seed: 1\nseed: 2", 'seed: 1\n"seed": 2'],
)
def test_a_key_that_is_given_twice_is_refused_in_yaml_and_json(text):
    with pytest.raises(PlainError, match="'seed' is given twice"):
        parse(text)


def test_an_endless_or_irregular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "long.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin.yaml").write_bytes("model: café".encode("latin-1"))
    for path, words in {
        "/dev/zero": "not a regular file",
        tmp_path / "pipe.yaml": "not a regular file",
        tmp_path: "is a folder",
        tmp_path / "long.yaml": "longer than",
        tmp_path / "latin.yaml": "not UTF-8",
        tmp_path / "none.yaml": "No such file",
        "\0": "cannot be read",
        tmp_path / ("x" * 400): "cannot be read",
    }.items():
        with pytest.raises(PlainError, match=words):
            read_file(type(tmp_path)(path))


def test_a_byte_order_mark_is_not_part_of_a_recipe(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfseed: 3")
    assert (
        Recipe.from_yaml(read_file(tmp_path / "a.yaml")).seed
        == 3
        == Recipe.from_yaml(decode_recipe(b"\xef\xbb\xbfseed: 3", "a")).seed
    )


# --- fuzzing -----------------------------------------------------------------------------------


def test_malformed_recipes_are_refused_in_a_sentence_and_never_raise_anything_else():
    from tests.benchmarks.fuzz_recipes import malformed_recipe

    draw, refused = random.Random(0), 0
    for _ in range(400):
        text = malformed_recipe(draw)
        try:
            Recipe.from_yaml(text).key()
        except PlainError as error:
            refused += 1
            assert len(str(error)) < 1000 and "\n" not in str(error), text
    assert 100 < refused < 400  # some are valid and some are not
