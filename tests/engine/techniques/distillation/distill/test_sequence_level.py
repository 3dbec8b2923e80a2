"""Black-box distillation: the student sees only the teacher's texts or labels."""

import pytest

from engine.errors import PlainError
from engine.models.loading import config_of, resolve_model
from engine.pipeline.run import run
from engine.training.losses import (
    IGNORE_INDEX,
    label_loss,
)
from tests.distillation import SHORT
from tests.recipes import recipe_for


def test_black_box_distillation_records_the_teachers_texts_and_no_teacher_loss(run_step):
    outcome = run_step("llama", setting="black-box", written=6, prompt=5)
    rows = outcome.tables.written
    assert len(rows) == 6 and all(rows.prompt.str.len() > 0) and rows.continuation.nunique() > 1
    assert "teacher" not in set(outcome.tables.curves["name"])


@pytest.mark.parametrize(
    ("asks", "begins", "ends"),
    [
        ("instructions", "Instruction:", "Answer:"),
        ("reasoning", "Question:", "First,"),
        ("few-shot", "", ""),
    ],
)
def test_black_box_prompts_follow_their_template(asks, begins, ends, folders, tmp_path):
    def teacher_texts(asks):
        step = SHORT | {"setting": "black-box", "written": 4, "prompt": 5, "asks": asks}
        recipe = recipe_for("llama", folders["llama"], tmp_path / "data", step)
        return run(
            recipe.model_copy(
                update={"calibration": recipe.calibration.model_copy(update={"context": 110})}
            )
        ).tables.written

    plain, rows = teacher_texts("continuations"), teacher_texts(asks)
    told = [" ".join(prompt.split()) for prompt in rows.prompt]
    assert len(rows) == 4 and all(
        prompt.startswith(begins) and prompt.endswith(ends) for prompt in told
    )
    assert all(
        " ".join(before.split()) in after and len(after) > len(before)
        for before, after in zip(plain.prompt, told, strict=True)
    )


def test_a_prompt_that_leaves_no_room_for_an_answer_gives_a_message(folders, tmp_path):
    step = SHORT | {"setting": "black-box", "written": 4, "prompt": 14, "asks": "few-shot"}
    with pytest.raises(
        PlainError,
        match=(
            r"leaves 0 for an answer, and it takes 8 at least; lower Prompt length "
            r"\(prompt\), or raise Calibration context \(calibration\.context\)\.$"
        ),
    ):
        run(recipe_for("llama", folders["llama"], tmp_path / "data", step))


def test_only_the_teachers_continuation_is_a_training_target(run_step, monkeypatch):
    seen = []

    def recording_loss(logits, targets):
        seen.append(targets)
        return label_loss(logits, targets)

    monkeypatch.setattr(
        "engine.techniques.distillation.distill.distillation_loss.label_loss", recording_loss
    )
    run_step("llama", setting="black-box", written=6, prompt=5)
    assert len(seen) == 4 and all(
        (each[:, :5] == IGNORE_INDEX).all() and (each[:, 5:] >= 0).all() for each in seen
    )


@pytest.mark.parametrize(("architecture", "reads"), [("bert", "."), ("resnet", "image [1-5]")])
def test_labels_chosen_by_the_teacher_are_listed(architecture, reads, run_step, folders):
    rows = run_step(architecture, setting="black-box", written=5).tables.written
    names = set(config_of(resolve_model(str(folders[architecture]))).id2label.values())
    assert len(rows) == 5 and all(rows.prompt.str.match(reads)) and set(rows.continuation) <= names
