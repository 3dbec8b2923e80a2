"""Errors of the student: counts computed by hand, the most certain ones first, and
unchanged texts.
"""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from engine.evaluation import evaluate
from engine.measurement import student_errors as mistakes_module
from engine.measurement.student_errors import CASES, EvaluationSet, evaluation_set
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model, tokenizer_of
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.recipes import recipe_for

CPU = torch.device("cpu")
RANDOM = {"technique": "distill", "student": "same", "start": "random", "steps": 2, "batch": 4}


@pytest.fixture(scope="module")
def student_run(folders, tmp_path_factory):
    """A student from random weights, whose mistakes are its own, and a teacher who is taken to be
    right about every other question: the outcome,
    what was asked, the models' folders.
    """
    kept = {}

    def of(architecture: str):
        if architecture not in kept:
            place, teacher = tmp_path_factory.mktemp(architecture), folders[architecture]
            recipe = recipe_for(architecture, teacher, place / "data", RANDOM, seed=6)
            paper = half_right(
                evaluation_set(recipe.task, resolve_model(str(teacher))),
                evaluation_result(recipe, teacher).guesses,
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(mistakes_module, "evaluation_set", lambda *_: paper)
                kept[architecture] = (
                    run(recipe, save=place / "student"),
                    paper,
                    recipe,
                    (teacher, place / "student"),
                )
        return kept[architecture]

    return of


def half_right(paper: EvaluationSet, guesses: np.ndarray) -> EvaluationSet:
    even = np.arange(len(guesses)) % 2 == 0
    return replace(paper, right=np.where(even, guesses, (guesses + 1) % 3))


def evaluation_result(recipe: Recipe, folder):
    at = resolve_model(str(folder))
    return evaluate(recipe.task, load_model(at, CPU, torch.float32).model, at)


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_all_four_cases_are_counted(architecture, student_run):
    outcome, paper, recipe, models = student_run(architecture)
    teacher, student = (
        evaluation_result(recipe, folder).guesses == paper.right for folder in models
    )
    (neither, only_student), (only_teacher, both) = confusion_matrix(
        teacher, student, labels=[False, True]
    )
    due = {
        (True, True): both,
        (True, False): only_teacher,
        (False, True): only_student,
        (False, False): neither,
    }
    counted = {
        (row.teacher, row.student): row.count for row in outcome.tables.verdicts.itertuples()
    }
    assert counted == due and list(counted) == list(CASES) and only_teacher > 0


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_mistakes_are_those_of_which_the_student_was_surest(architecture, student_run):
    table = (outcome := student_run(architecture)[0]).tables.mistakes
    lost = outcome.tables.verdicts.set_index(["teacher", "student"])["count"][True, False]
    assert len(table) == min(lost, mistakes_module.MAX_MISTAKES) > 0
    assert (
        table.student.is_monotonic_decreasing
        and table.student.between(0, 1).all()
        and table.teacher.between(0, 1).all()
    )
    whole = table[~table.label.str.contains("�")]  # not a byte of a longer character
    assert len(whole) and (whole.label != whole.answer).all()


def test_probabilities_are_the_models_own(student_run):
    outcome, _, recipe, (folder, student) = student_run("bert")
    texts = [row["text"] for row in json.loads(Path(recipe.task.data).read_text())]
    assert len(outcome.tables.mistakes)
    for row in outcome.tables.mistakes.itertuples():
        assert row.text in texts
        inputs = tokenizer_of(resolve_model(str(folder)))(
            [row.text], return_tensors="pt", return_token_type_ids=False
        )
        with torch.inference_mode():
            teacher_probabilities, student_probabilities = (
                load_model(resolve_model(str(each)), CPU, torch.float32)
                .model(**inputs)
                .logits.softmax(-1)[0]
                for each in (folder, student)
            )
        assert (
            row.teacher == pytest.approx(teacher_probabilities.max().item(), rel=1e-4)
            and row.label == f"LABEL_{teacher_probabilities.argmax()}"
        )
        assert (
            row.student == pytest.approx(student_probabilities.max().item(), rel=1e-4)
            and row.answer == f"LABEL_{student_probabilities.argmax()}"
        )


def test_of_a_text_the_next_token_is_asked_for(student_run):
    outcome, _, recipe, (folder, student) = student_run("llama")
    paper = evaluation_set(recipe.task, resolve_model(str(folder)))
    # of the second window, whose questions begin at 63
    at, place = load_model(resolve_model(str(student)), CPU, torch.float32), 70
    with torch.inference_mode():
        due = at.model(input_ids=paper.windows[1:2]).logits[0, 70 - 63].softmax(-1)
    assert paper.answer_probabilities(at, np.array([place]), np.array([9])).item() == pytest.approx(
        due[9].item(), rel=1e-4
    )
    assert paper.right[place] == paper.windows[1, 70 - 63 + 1]
    mistakes = outcome.tables.mistakes
    assert not mistakes.empty and mistakes.text.str.startswith("…").all()
    assert mistakes.label.str[0].isin(["'", '"']).all()


def test_pictures_are_shown_as_they_are(student_run):
    outcome, paper, *_ = student_run("resnet")
    link = paper.question(3)["picture"]
    shown = Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2])))
    assert link.startswith("data:image/png;base64,") and np.array_equal(
        np.asarray(shown), np.asarray(paper.examples.inputs[3])
    )
    assert outcome.tables.mistakes.picture.str.startswith("data:image/png").all()


def test_a_student_that_answers_as_its_teacher_makes_no_mistakes(folders, tmp_path):
    outcome = run(
        recipe_for(
            "resnet", folders["resnet"], tmp_path / "data", RANDOM | {"start": "teacher", "rate": 0}
        )
    )
    both, *one_alone, neither = outcome.tables.verdicts["count"]
    assert outcome.tables.mistakes.empty and one_alone == [0, 0] and both + neither == 40
    assert both / 40 == pytest.approx(outcome.summary.baseline.accuracy)
