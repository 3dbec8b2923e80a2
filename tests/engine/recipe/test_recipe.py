"""Recipes and the catalog: what may be asked for, and how a refusal reads."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError, option_name
from engine.recipe import Layers, Recipe, with_newer_fields
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    LanguageModeling,
    TextClassification,
)
from tests.cases import for_each
from tests.recipe_strategies import configs
from tests.sentences import assert_one_clear_sentence

TASKS = {
    task.model_fields["kind"].default: task
    for task in (LanguageModeling, TextClassification, ImageClassification)
}


steps = st.one_of(*(configs(technique) for technique in TECHNIQUES.values()))


def composable(drawn):
    """Return True if the second of two steps may follow the first."""
    return (
        "dense" in drawn[0].accepts and drawn[0].produces in drawn[1].accepts
        if len(drawn) == 2
        else True
    )


recipes = st.builds(
    Recipe,
    model=st.text(min_size=1, max_size=40),
    task=st.one_of(*(configs(task) for task in TASKS.values())),
    calibration=st.none() | configs(Calibration),
    seed=st.integers(0, 2**32 - 1),
    layers=configs(Layers),
    steps=st.lists(steps, max_size=2).map(tuple).filter(composable),
    device=st.sampled_from(["auto", "cpu", "cuda", "mps"]),
    dtype=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
)


@given(recipes)
def test_yaml_says_a_recipe_and_back(recipe):
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@given(recipes)
def test_json_says_a_recipe_and_back(recipe):
    assert Recipe.from_dict(json.loads(recipe.model_dump_json())) == recipe


@given(recipes)
def test_a_recipe_that_went_through_yaml_has_the_same_key(recipe):
    assert Recipe.from_yaml(recipe.to_yaml()).key() == recipe.key()


@given(recipes, recipes)
def test_different_recipes_have_different_keys(one, other):
    assert (one.key() == other.key()) == (one == other)


def test_an_order_that_is_not_possible_names_what_can_follow():
    with pytest.raises(
        PlainError,
        match=r"GPTQ cannot come after SVD.*remove one of them, or use Round to nearest.* next\.$",
    ):
        Recipe.from_dict({"steps": [{"technique": "svd"}, {"technique": "gptq"}]})


@given(recipes)
def test_every_recipe_has_a_label_of_one_line(recipe):
    assert recipe.label().strip() and "\n" not in recipe.label()


@given(
    st.text(min_size=1, max_size=400)
    | st.sampled_from(["é" * 4000, "~nobody-here", "\x00", "/root/../" * 400])
)
def test_any_model_name_has_a_key(name):
    assert Recipe(model=name, task=LanguageModeling(text=name)).key()


def test_an_empty_recipe_compresses_nothing_and_says_so():
    drawn = {"steps": [{"technique": "random"}]}
    assert (
        Recipe.from_dict(drawn | {"seed": 3}).label()
        == f"{Recipe.from_dict(drawn).label()}, seed 3"
    )
    assert Recipe.from_dict({}) == Recipe() and Recipe().label() == "Uncompressed"


def test_a_changed_local_text_changes_the_key(tmp_path):
    (tmp_path / "text.txt").write_text("one")
    recipe = Recipe(task=LanguageModeling(text=str(tmp_path / "text.txt")))
    before = recipe.key()
    (tmp_path / "text.txt").write_text("another")
    assert recipe.key() != before


# --- keys -----------------------------------------------------------------------------------------

# every technique as the first version dumped it, all options explicit, and the key it had
STORED = json.loads((Path(__file__).parents[2] / "golden" / "keys.json").read_text())


@for_each("technique", STORED)
def test_a_stored_recipe_keeps_its_options_and_its_key_unless_its_answer_changed(
    technique, monkeypatch
):
    stored = STORED[technique]
    recipe = Recipe.from_dict(with_newer_fields(stored["recipe"]))
    now = json.loads(recipe.model_dump_json())["steps"][0]
    assert {name: now[name] for name in stored["recipe"]["steps"][0]} == stored["recipe"]["steps"][
        0
    ]
    assert (recipe.key() == stored["key"]) == (recipe.steps[0].revision == 1)
    monkeypatch.setattr(Recipe, "revisions", ())
    assert recipe.key() == stored["key"]


def test_a_gptq_recipe_stored_before_there_was_a_range_means_the_widest_weight():
    written = {"steps": [{"technique": "magnitude"}, {"technique": "gptq", "bits": 3}]}
    stored, typed = Recipe.from_dict(with_newer_fields(written)), Recipe.from_dict(written)
    assert (stored.steps[1].range, typed.steps[1].range) == (
        "absmax",
        "mse",
    ) and stored.key() != typed.key()
    assert '"range"' not in stored.model_dump_json(exclude=stored.default_fields)
    assert '"range":"mse"' in typed.model_dump_json(exclude=typed.default_fields)
    assert Recipe.from_dict(with_newer_fields(typed.model_dump(mode="json"))) == typed
    percentile = Recipe.from_dict({"steps": [{"technique": "gptq", "percentile": 99}]})
    assert percentile.steps[
        0
    ].range == "percentile" and '"percentile":99.0' in percentile.model_dump_json(
        exclude=percentile.default_fields
    )


@for_each(
    "steps",
    [
        None,
        "gptq",
        {"technique": "gptq"},
        [None, "gptq", {"technique": ["gptq"]}, {"technique": "none"}],
    ],
)
def test_damaged_steps_of_a_stored_recipe_are_left_to_the_check(steps):
    assert with_newer_fields({"steps": steps}) == {"steps": steps}


def test_only_grids_whose_largest_weight_is_a_tie_have_a_new_revision():
    symmetric, spared = (
        {"scheme": "symmetric"},
        ({"scheme": "asymmetric"}, {"grid": "narrow"}, {"scales": "power-of-two"}),
    )
    assert (
        TECHNIQUES["round-to-nearest"](**symmetric).revision
        == TECHNIQUES["qat"](**symmetric).revision
        == 2
    )
    assert all(TECHNIQUES["round-to-nearest"](**config).revision == 1 for config in spared)
    for name in ("gptq", "awq", "mixed-precision"):
        assert (
            TECHNIQUES[name](scheme="symmetric").revision == 2
            and TECHNIQUES[name](scheme="asymmetric").revision == 1
        )
    assert TECHNIQUES["activations"]().revision == TECHNIQUES["hqq"]().revision == 1


# --- techniques -----------------------------------------------------------------------------------


# how far beyond a bound the first refused value is
ENDS = {"minimum": -1, "maximum": 1, "exclusiveMinimum": 0, "exclusiveMaximum": 0}


def steps_beyond():
    """Every bound of every technique, one step beyond: (technique, option, value)."""
    for name, technique in TECHNIQUES.items():
        for option, schema in technique.model_json_schema()["properties"].items():
            for plain in schema.get("anyOf", [schema]):
                step = 1 if plain.get("type") == "integer" else 1e-6
                yield from (
                    (name, option, plain[end] + way * step)
                    for end, way in ENDS.items()
                    if end in plain
                )


def choices():
    return [
        (name, option)
        for name, cls in TECHNIQUES.items()
        for option, schema in cls.model_json_schema()["properties"].items()
        if "enum" in schema
    ]


def with_required_options(technique, option, value) -> dict:
    beside = TECHNIQUES[technique].model_fields[option].json_schema_extra["when"]
    return {"technique": technique, option: value} | {
        other: values[0] for other, values in beside.items()
    }


def error_message(fields) -> str:
    with pytest.raises(PlainError) as error:
        Recipe.from_dict(fields)
    return str(error.value)


@for_each(("technique", "option", "value"), list(steps_beyond()))
def test_every_bound_refuses_one_step_beyond(technique, option, value):
    sentence = error_message({"steps": [with_required_options(technique, option, value)]})
    where = f"Step 1, {option_name(TECHNIQUES[technique], option)}"
    assert sentence.startswith(f"{where}: {value} is not allowed; give a ")
    assert_one_clear_sentence(sentence)


@for_each(("technique", "option"), choices())
def test_every_choice_refuses_others_and_lists_its_own(technique, option):
    sentence = error_message({"steps": [with_required_options(technique, option, "no-such-thing")]})
    allowed = TECHNIQUES[technique].model_json_schema()["properties"][option]["enum"]
    where = f"Step 1, {option_name(TECHNIQUES[technique], option)}"
    assert sentence.startswith(f"{where}: 'no-such-thing' is not allowed; give ")
    assert all(str(choice) in sentence for choice in allowed)
    assert_one_clear_sentence(sentence)


# --- refusals -------------------------------------------------------------------------------------


@for_each(
    ("fields", "sentence"),
    [
        (
            {"steps": [{"technique": "round-to-nearest", "bits": 9}]},
            "Step 1, Bits (bits): 9 is not allowed; give a whole number from 2 to 8.",
        ),
        (
            {"seed": 2**32},
            "Seed: 4294967296 is not allowed; give a whole number from 0 to 4294967295.",
        ),
        (
            {"seed": 10**5000},
            "Seed: a number this large is not allowed; give a whole number from 0 to 4294967295.",
        ),
        ({"seed": True}, None),
        (
            {"seed": None},
            "Seed: an empty value is not allowed; give a whole number from 0 to 4294967295.",
        ),
        ({"model": ["a"]}, "Model: a list is not allowed; give text of 1 to 4096 characters."),
        (
            {"model": {"a": 1}},
            "Model: a mapping is not allowed; give text of 1 to 4096 characters.",
        ),
        ({"model": ""}, "Model: an empty value is not allowed; give text of 1 to 4096 characters."),
        (
            {"layers": {"skip": "lm_head"}},
            "Layers to skip (layers.skip): 'lm_head' is not allowed; give a list.",
        ),
        (
            {"layers": {"skip": [1]}},
            "Layers to skip (layers.skip), item 1: 1 is not allowed; give text.",
        ),
        ({"device": "tpu"}, "Device: 'tpu' is not allowed; give auto, cpu, cuda or mps."),
        (
            {"task": {"kind": "language-modeling", "context": 1}},
            "Context (task.context): 1 is not allowed; give a whole number from 2 to 131072.",
        ),
        (
            {"task": {"kind": "language-modeling", "tokens": 1}},
            (
                "Tokens to evaluate (task.tokens): 1 is not allowed; give a whole number of at "
                "least 2."
            ),
        ),
        (
            {"task": {"kind": "language-modeling", "text": ""}},
            "Text (task.text): an empty value is not allowed; give text that is not empty.",
        ),
        (
            {"calibration": {"samples": 0}},
            (
                "Calibration examples (calibration.samples): 0 is not allowed; give a whole number "
                "from 1 to 4096."
            ),
        ),
        (
            {"calibration": 3},
            (
                "Calibration: 3 is not allowed; give a mapping with keys such as text, "
                "text_column, split."
            ),
        ),
        ({"steps": {"technique": "gptq"}}, "Steps: a mapping is not allowed; give a list."),
    ],
)
def test_a_refusal_says_where_what_and_what_instead(fields, sentence):
    if sentence is None:
        assert Recipe.from_dict(fields).seed == 1
    else:
        assert error_message(fields) == sentence


def test_an_impossible_order_of_steps_is_refused():
    techniques = [technique() for technique in TECHNIQUES.values()]
    # itself, and the next one
    for first, second in zip(
        techniques * 2, [*techniques, *techniques[1:], techniques[0]], strict=True
    ):
        fields = {"steps": [{"technique": first.technique}, {"technique": second.technique}]}
        if first.produces in second.accepts:
            assert len(Recipe.from_dict(fields).steps) == 2
        else:
            assert (
                error_message(fields)
                .lower()
                .startswith(
                    f"steps: {second.title} cannot come after {first.title}, which leaves ".lower()
                )
            )


def test_only_training_accepts_codes():
    assert all("codes" not in config().accepts or config.trains for config in TECHNIQUES.values())
    assert [name for name, config in TECHNIQUES.items() if "codes" in config().accepts] == [
        "qat",
        "bitnet",
        "lora",
    ]


def test_adapters_are_merged_into_weights_alone_and_then_others_may_follow():
    apart, merged = {"technique": "lora"}, {"technique": "lora", "merge": True}
    assert (
        len(
            Recipe.from_dict(
                {"steps": [{"technique": "magnitude"}, merged, {"technique": "round-to-nearest"}]}
            ).steps
        )
        == 3
    )
    for before in ("round-to-nearest", "svd"):
        assert len(Recipe.from_dict({"steps": [{"technique": before}, apart]}).steps) == 2
        assert "low-rank adapters (LoRA) cannot come after " in error_message(
            {"steps": [{"technique": before}, merged]}
        )
    assert error_message({"steps": [apart, {"technique": "round-to-nearest"}]}).startswith(
        "Steps: round to nearest cannot come after Low-rank adapters (LoRA)"
    )


def test_the_step_that_is_wrong_is_counted_as_people_count():
    fine = {"technique": "bitsandbytes"}
    assert error_message({"steps": [fine, fine | {"block_size": 65}]}).startswith(
        "Step 2, Block size (block_size): 65 is not allowed; give 64, 128"
    )


def test_an_unknown_option_is_answered_with_the_nearest_and_all_of_them():
    assert error_message({"modle": "x"}).startswith(
        "The recipe: there is no option 'modle' (did you mean model?); the options are model, task,"
    )
    sentence = error_message({"steps": [{"technique": "round-to-nearest", "groupsize": 32}]})
    assert sentence.startswith(
        "Step 1: there is no option 'groupsize' (did you mean group_size?); the options are "
    )
    assert all(option in sentence for option in TECHNIQUES["round-to-nearest"].model_fields)


def test_an_unknown_technique_is_answered_with_the_known_ones():
    for given_ in ("no-such-technique", ["a"], None):
        sentence = error_message({"steps": [{"technique": given_}]})
        assert (
            sentence.startswith("Step 1: ")
            and "is not a known technique; give " in sentence
            and all(name in sentence for name in TECHNIQUES)
        )
    assert "(did you mean round-to-nearest?)" in error_message(
        {"steps": [{"technique": "round_to_nearest"}]}
    )


def test_a_step_without_technique_or_task_without_kind_gives_a_message():
    assert error_message({"steps": [{"bits": 4}]}).startswith("Step 1: technique is missing; give ")
    assert error_message({"task": {"context": 4}}).startswith("Task: kind is missing; give ")


def test_a_bare_name_as_a_step_is_answered_with_an_example():
    assert re.fullmatch(
        r"Step 1: 'gptq' is not allowed; give a mapping such as \{technique: [\w-]+\}\.",
        error_message({"steps": ["gptq"]}),
    )


def test_a_recipe_that_is_no_mapping_is_refused():
    for fields in ([], "text", 3, None):
        with pytest.raises(PlainError, match="A recipe is a mapping"):
            Recipe.from_dict(fields)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)
keyed = st.dictionaries(
    st.sampled_from([*Recipe.model_fields, "technique", "kind", "skip", "bits"])
    | st.text(max_size=5),
    anything,
    max_size=4,
)
stepped = st.fixed_dictionaries(
    {
        "steps": st.lists(
            st.fixed_dictionaries(
                {"technique": st.sampled_from(list(TECHNIQUES))},
                optional={"bits": anything, "format": anything},
            )
        )
    }
)


@given(
    anything
    | keyed
    | stepped
    | st.fixed_dictionaries({"task": keyed, "layers": keyed, "steps": st.lists(keyed, max_size=2)})
)
def test_anything_is_a_recipe_or_refused_in_one_clear_sentence(fields):
    try:
        Recipe.from_dict(fields)
    except PlainError as error:
        # what was given is quoted, whatever it says; the rest is ours
        assert "\n" not in str(error) and str(error).endswith(".") and len(str(error)) < 1000


EVIL = [
    "model: 2024-13-45",
    "model: !!bool 3",
    "model: !!int ''",
    "model: !!timestamp x",
    "model: !!binary é",
    "!!float ''",
    "steps: !!set {a}",
]
EVIL += [
    "seed: " + "9" * 5000,
    "a: " + "[" * 2000,
    "&a [*a]",
    "model: &a [*a]",
    "a: &x 1\nb: *y",
    "!!python/object:os.system x",
]
EVIL += ["\t", "{", "a: b: c", "? [1]\n: 2", "- 1", "\x00"]


@for_each("text", EVIL)
def test_bad_yaml_is_refused_in_a_sentence(text):
    with pytest.raises(PlainError) as error:
        Recipe.from_yaml(text)
    assert_one_clear_sentence(str(error.value))


@given(st.text())
def test_any_text_is_a_recipe_or_refused(text):
    try:
        Recipe.from_yaml(text)
    except PlainError as error:
        assert str(error).endswith(".")


def test_bad_yaml_is_refused_with_its_line():
    # where the parser stops depends on whether PyYAML has libyaml
    with pytest.raises(PlainError, match=r"not valid YAML \(line [23], column \d+\)"):
        Recipe.from_yaml("model: a\nsteps: [")


@for_each(
    ("step", "chosen"),
    [
        ({"technique": "svd", "rank": 8}, {"by": "rank"}),
        ({"technique": "svd", "energy": 0.5}, {"by": "energy"}),
        # the default's number, so nothing is said
        ({"technique": "svd", "rank": 32}, {"by": "kept"}),
        ({"technique": "svd", "by": "kept", "rank": 8}, {"by": "kept"}),  # as it is written out
        ({"technique": "tucker", "rank_in": 4}, {"by": "rank"}),
    ],
)
def test_an_option_sets_the_options_it_requires(step, chosen):
    assert Recipe.from_dict({"steps": [step]}).steps[0].model_dump().items() >= chosen.items()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"technique": "svd", "rank": 8, "energy": 0.5},
            (
                "(energy) is used only if Choose ranks by (by) is energy; set by too, or remove "
                "energy."
            ),
        ),
        (
            {"technique": "gradual", "strength": 1e-3},
            "(strength) is used only if Sparsity regularizer (regularizer) is l1 or l0",
        ),
    ],
)
def test_options_that_presuppose_several_things_are_refused_and_not_passed_over(step, words):
    sentence = error_message({"steps": [step]})
    assert words in sentence
    assert_one_clear_sentence(sentence)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("seed: 1\nseed: 2", "seed"),
        ("steps: [{technique: gptq, bits: 4, bits: 3}]", "bits"),
        ("task: {kind: a, kind: b}", "kind"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(text, name):
    with pytest.raises(
        PlainError,
        match=rf"The recipe is not valid YAML \(line \d+, column \d+\): '{name}' is given twice\.",
    ) as error:
        Recipe.from_yaml(text)
    assert_one_clear_sentence(str(error.value))
