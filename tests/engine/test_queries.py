"""Live questions: each has a handler, travels between processes, and has a key of its own."""

import pickle
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest

from engine import queries
from engine.interactive import answers  # noqa: F401  # registers the handlers
from engine.interactive.registry import answer
from engine.queries import PastRun, Query, RecipeQuery, StepQuery
from engine.recipe import Recipe
from engine.session.questions import query_key

RECIPE = Recipe.from_dict({"steps": [{"technique": "gptq"}]})
VALUES = {
    "recipe": RECIPE,
    "model": RECIPE.model,
    "layer": "a.layer",
    "row": 3,
    "column": 4,
    "scales": (1.0, 2.0),
    "example": 2,
    "temperature": 4.0,
    "past": PastRun(RECIPE, 60.0, 1e9),
}
KINDS = [
    kind
    for kind in vars(queries).values()
    if isinstance(kind, type)
    and issubclass(kind, Query)
    and kind not in (Query, RecipeQuery, StepQuery)
]
each_kind = pytest.mark.parametrize("kind", KINDS)


def query_of(kind: type[Query]) -> Query:
    return kind(**{each.name: VALUES[each.name] for each in fields(kind)})


@each_kind
def test_every_question_has_a_handler(kind):
    assert answer.dispatch(kind) is not answer.dispatch(Query)


@each_kind
def test_a_question_travels_between_processes(kind):
    query = query_of(kind)
    assert pickle.loads(pickle.dumps(query)) == query


def test_questions_have_different_keys():
    asked = [query_of(kind) for kind in KINDS]
    assert len({query_key(query) for query in asked}) == len(KINDS) >= 13
    for query in asked:
        assert query_key(query) == query_key(pickle.loads(pickle.dumps(query)))
        model = "" if isinstance(query, queries.WorkerQuery) else RECIPE.model
        assert query.about[0] == model


def test_every_field_is_in_the_key():
    query = query_of(queries.ForecastQuery)
    slower = PastRun(RECIPE, 61.0, 1e9)
    assert query_key(query) != query_key(queries.ForecastQuery(RECIPE, slower))
    assert is_dataclass(slower) and query_key(queries.ForecastQuery(RECIPE)) != query_key(query)


def test_the_screen_gets_questions_and_events_without_torch():
    """Importing torch takes more than a second."""
    modules = "engine.queries, engine.events, engine.interactive.registry, tests.extra_queries"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
