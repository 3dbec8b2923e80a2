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
from engine.measurement.student_errors import CASES, Paper, paper_of
from engine.models.loaded_model import opened
from engine.models.loading import resolve, tokenizer_of
from engine.pipeline.run import run
from engine.recipe import Recipe
from tests.recipes import recipe_for

CPU = torch.device("cpu")
RANDOM = {"technique": "distill", "student": "same", "start": "random", "steps": 2, "batch": 4}


@pytest.fixture(scope="module")
def done(folders, tmp_path_factory):
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
                paper_of(recipe.task, resolve(str(teacher))), measured(recipe, teacher).guesses
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(mistakes_module, "paper_of", lambda *_: paper)
                kept[architecture] = (
                    run(recipe, save=place / "student"),
                    paper,
                    recipe,
                    (teacher, place / "student"),
                )
        return kept[architecture]

    return of


def half_right(paper: Paper, guesses: np.ndarray) -> Paper:
    even = np.arange(len(guesses)) % 2 == 0
    return replace(paper, right=np.where(even, guesses, (guesses + 1) % 3))


def measured(recipe: Recipe, folder):
    at = resolve(str(folder))
    return evaluate(recipe.task, opened(at, CPU, torch.float32).model, at)


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_all_four_cases_are_counted(architecture, done):
    outcome, paper, recipe, models = done(architecture)
    teacher, student = (measured(recipe, folder).guesses == paper.right for folder in models)
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
def test_mistakes_are_those_of_which_the_student_was_surest(architecture, done):
    table = (outcome := done(architecture)[0]).tables.mistakes
    lost = outcome.tables.verdicts.set_index(["teacher", "student"])["count"][True, False]
    assert len(table) == min(lost, mistakes_module.MOST) > 0
    assert (
        table.student.is_monotonic_decreasing
        and table.student.between(0, 1).all()
        and table.teacher.between(0, 1).all()
    )
    whole = table[~table.label.str.contains("�")]  # not a byte of a longer character
    assert len(whole) and (whole.label != whole.answer).all()


def test_probabilities_are_the_models_own(done):
    outcome, _, recipe, (folder, student) = done("bert")
    texts = [row["text"] for row in json.loads(Path(recipe.task.data).read_text())]
    assert len(outcome.tables.mistakes)
    for row in outcome.tables.mistakes.itertuples():
        assert row.text in texts
        inputs = tokenizer_of(resolve(str(folder)))(
            [row.text], return_tensors="pt", return_token_type_ids=False
        )
        with torch.inference_mode():
            its, mine = (
                opened(resolve(str(each)), CPU, torch.float32).model(**inputs).logits.softmax(-1)[0]
                for each in (folder, student)
            )
        assert (
            row.teacher == pytest.approx(its.max().item(), rel=1e-4)
            and row.label == f"LABEL_{its.argmax()}"
        )
        assert (
            row.student == pytest.approx(mine.max().item(), rel=1e-4)
            and row.answer == f"LABEL_{mine.argmax()}"
        )


def test_of_a_text_the_next_token_is_asked_for(done):
    outcome, _, recipe, (folder, student) = done("llama")
    paper = paper_of(recipe.task, resolve(str(folder)))
    # of the second window, whose questions begin at 63
    at, place = opened(resolve(str(student)), CPU, torch.float32), 70
    with torch.inference_mode():
        due = at.model(input_ids=paper.windows[1:2]).logits[0, 70 - 63].softmax(-1)
    assert paper.likely(at, np.array([place]), np.array([9])).item() == pytest.approx(
        due[9].item(), rel=1e-4
    )
    assert paper.right[place] == paper.windows[1, 70 - 63 + 1]
    assert all(
        row.text.startswith("…") and row.label[0] in "'\""
        for row in outcome.tables.mistakes.itertuples()
    )


def test_pictures_are_shown_as_they_are(done):
    outcome, paper, *_ = done("resnet")
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
