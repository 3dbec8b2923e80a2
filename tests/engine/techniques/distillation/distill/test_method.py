"""Students: losses are their formulas, weights of 0 and 1 are plain courses, and what is written is
what was learned.
"""

import json

import pandas as pd
import pytest
import torch
from torch.nn.functional import (
    cosine_similarity,
    cross_entropy,
    kl_div,
    log_softmax,
    mse_loss,
    softmax,
)

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError
from engine.models.loaded_model import load_model, multiplies_bfloat16
from engine.models.loading import config_of, load_pretrained, resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.tasks import ImageClassification, Training
from engine.step.run_context import RunContext
from engine.techniques.distillation.distill.config import Distill
from engine.techniques.distillation.distill.distill_run import DistillRun
from engine.techniques.distillation.distill.distillation_loss import (
    DistillationLoss,
    combined_teacher_logits,
    compared_block_pairs,
)
from engine.techniques.distillation.distill.r_drop import TwoViews, has_dropout, perturbed_batch
from engine.techniques.distillation.distill.teacher_logits import teacher_outputs
from engine.training import EncodedExamples, load_training_data, loop
from engine.training.accelerated import accelerator_for
from engine.training.loop import TrainingConfig, forward_backward, train_steps
from engine.training.losses import (
    IGNORE_INDEX,
    attention_transfer_loss,
    feature_loss,
    label_loss,
    teacher_loss,
)
from tests.answers import forecast
from tests.cases import for_each
from tests.recipes import few_digits, recipe_for
from tests.tiny import ARCHITECTURES, LANGUAGE_MODELS, tiny
from tests.training_examples import exercises

CPU = torch.device("cpu")
SHORT = {"technique": "distill", "steps": 4, "batch": 4, "rate": 1e-2}
FINE = {"technique": "fine-tune", "steps": 4, "batch": 4, "rate": 1e-2}
KINDS = ("llama", "bert", "resnet")
STUDENTS = {
    "half the blocks": {},
    "half the blocks and heads": {"heads": 0.5},
    "narrower": {"width": 0.5},
    "same": {"student": "same"},
    "same, at random": {"student": "same", "start": "random"},
    "half precision": {"values": "float16"},
}
TWELVE = {"num_hidden_layers": 12, "num_attention_heads": 12}
CASES = [
    (a, s)
    for a in ARCHITECTURES
    for s in STUDENTS
    if (a, s) != ("resnet", "half the blocks and heads")
]


@pytest.fixture
def run_step(folders, tmp_path):
    def run_recipe(
        architecture="bert",
        *more,
        save=None,
        cancelled=lambda: False,
        training=None,
        report=lambda *_: None,
        **step,
    ):
        first = (FINE if step.get("technique") == "fine-tune" else SHORT) | step
        fields = {"training": training} if training else {}
        recipe = recipe_for(
            architecture, folders[architecture], tmp_path / "data", first, *more, **fields
        )
        return run(recipe, save=save, cancelled=cancelled, report=report)

    return run_recipe


def curve(outcome, name="loss", phase="student") -> list[float]:
    rows = outcome.tables.curves
    return rows[(rows["name"] == name) & (rows["phase"] == phase)]["value"].tolist()


def error_message(run_step, *arguments, **fields) -> str:
    with pytest.raises(PlainError) as error:
        run_step(*arguments, **fields)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    return str(error.value)


# --- losses ---------------------------------------------------------------------------------------


def test_each_term_is_torchs_own_and_its_closed_form():
    ours, theirs = torch.randn(5, 7), torch.randn(5, 7)
    p, q = softmax(theirs / 3, -1), log_softmax(ours / 3, -1)
    assert teacher_loss(ours, theirs, 3.0).item() == pytest.approx(
        9 * (p * (p.log() - q)).sum(-1).mean().item(), rel=1e-5
    )
    assert teacher_loss(ours, theirs, 3.0).item() == pytest.approx(
        9 * kl_div(q, p, reduction="batchmean").item(), rel=1e-5
    )
    assert feature_loss(ours, theirs).item() == pytest.approx(mse_loss(ours, theirs).item())
    assert feature_loss(ours, theirs, cosine=True).item() == pytest.approx(
        1 - cosine_similarity(ours, theirs).mean().item(), rel=1e-5
    )


def test_attention_is_compared_by_where_it_is_whatever_the_width_and_strength():
    states = torch.randn(3, 6, 8)
    assert attention_transfer_loss(states, 5 * states).item() == pytest.approx(0, abs=1e-6)
    assert attention_transfer_loss(states, states.repeat(1, 1, 2)).item() == pytest.approx(
        0, abs=1e-6
    )
    mine, its = (each.square().mean(-1) for each in (states, states.flip(1)))
    apart = mine / mine.norm(dim=-1, keepdim=True) - its / its.norm(dim=-1, keepdim=True)
    assert attention_transfer_loss(states, states.flip(1)).item() == pytest.approx(
        apart.square().sum(-1).mean().item(), rel=1e-5
    )


def test_the_square_of_the_temperature_keeps_slopes_of_one_size():
    """For a large T the gradient by the logits is their centered difference over the number of
    classes
    (Hinton et al. 2015, equation 4).
    """
    theirs, ours = torch.randn(4, 6), torch.randn(4, 6, requires_grad=True)
    (slope,) = torch.autograd.grad(teacher_loss(ours, theirs, 1000.0), ours)
    gap = (ours - theirs).detach()
    torch.testing.assert_close(
        slope, (gap - gap.mean(-1, keepdim=True)) / 6 / 4, rtol=0.02, atol=1e-4
    )


def test_examples_without_a_label_count_for_nothing():
    logits, targets = torch.randn(4, 3), torch.tensor([0, IGNORE_INDEX, 2, IGNORE_INDEX])
    assert label_loss(logits, targets).item() == pytest.approx(
        cross_entropy(logits[::2], targets[::2]).item()
    )
    assert label_loss(logits, torch.full((4,), IGNORE_INDEX)).item() == 0


def test_teachers_that_agree_say_what_each_says_and_the_surer_one_counts_more():
    one, other = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.1, 0.0, 0.2]])
    torch.testing.assert_close(
        softmax(combined_teacher_logits([one, one], 2.0, "confidence") / 2, -1),
        softmax(one / 2, -1),
    )
    mean, sure = (
        softmax(combined_teacher_logits([one, other], 1.0, by), -1) for by in ("mean", "confidence")
    )
    torch.testing.assert_close(mean, (softmax(one, -1) + softmax(other, -1)) / 2)
    assert sure[0, 0] > mean[0, 0]


def test_a_block_is_compared_with_the_teachers_at_the_same_share_of_the_way():
    def deep(blocks: int):
        return ARCHITECTURES["llama"](num_hidden_layers=blocks)

    asked = TECHNIQUES["distill"](features="mse")
    pairs = [
        tuple(int(name.rpartition(".")[2]) for name in pair)
        for pair in compared_block_pairs(asked, deep(2), deep(4))
    ]
    assert pairs == [(0, 1), (1, 3)]
    last = compared_block_pairs(
        asked.model_copy(update={"feature_blocks": "last"}), deep(3), deep(4)
    )
    assert last == [("model.layers.2", "model.layers.3")]
    named = compared_block_pairs(
        asked.model_copy(update={"feature_blocks": "3, 1"}), deep(4), deep(8)
    )
    assert named == [("model.layers.0", "model.layers.1"), ("model.layers.2", "model.layers.5")]
    with pytest.raises(
        PlainError,
        match=(
            r"\(feature_blocks\) names block 9, and the student has 4; give numbers from 1 to 4, "
            r"or each, or last\.$"
        ),
    ):
        compared_block_pairs(asked.model_copy(update={"feature_blocks": "1,9"}), deep(4), deep(8))


def test_one_block_may_be_a_plain_number():
    assert TECHNIQUES["distill"](features="mse", feature_blocks=2).compared_blocks == (2,)


@for_each("given", ["first", "0,1", "1,,2", "1.5", "-1", ","])
def test_blocks_that_are_no_numbers_are_refused_in_one_sentence(given):
    with pytest.raises(PlainError) as error:
        Recipe.from_dict(
            {"steps": [{"technique": "distill", "features": "mse", "feature_blocks": given}]}
        )
    assert "is not a list of blocks; give each" in str(error.value) and "\n" not in str(error.value)


# --- weights of the terms -------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", KINDS)
def test_without_weight_a_teacher_teaches_nothing(architecture, run_step):
    """The same curve as fine-tuning, to the bit."""
    student, plain = (
        run_step(architecture, student="same", distill_weight=0),
        run_step(architecture, technique="fine-tune"),
    )
    assert curve(student) == curve(plain) and len(curve(plain)) == 4
    assert student.summary.result.loss == plain.summary.result.loss


def test_a_teacher_alone_is_not_moved_by_labels(run_step, monkeypatch):
    one = run_step(distill_weight=1)
    monkeypatch.setattr(
        "engine.techniques.distillation.distill.distillation_loss.label_loss",
        lambda logits, targets: 1 / 0,
    )
    assert curve(run_step(distill_weight=1)) == curve(one)


def test_the_loss_is_its_terms_each_with_its_weight(run_step):
    outcome = run_step(distill_weight=0.3, features="mse", feature_weight=0.5, attention_weight=2.0)
    terms = {
        name: torch.tensor(curve(outcome, name))
        for name in ("loss", "labels", "teacher", "features", "attention")
    }
    due = (
        0.7 * terms["labels"]
        + 0.3 * terms["teacher"]
        + 0.5 * terms["features"]
        + 2 * terms["attention"]
    )
    torch.testing.assert_close(terms["loss"], due, rtol=1e-4, atol=1e-5)


def test_a_student_learns_what_its_teacher_says(run_step):
    outcome = run_step(
        "resnet",
        student="same",
        start="random",
        distill_weight=1,
        steps=40,
        batch=16,
        temperature=4,
    )
    assert sum(curve(outcome)[-5:]) < 0.5 * sum(curve(outcome)[:5])


# --- asking ---------------------------------------------------------------------------------------


def test_each_example_is_asked_about_once_however_often_it_comes_and_the_course_stays_the_same(
    run_step, monkeypatch
):
    heard = []
    asked = DistillationLoss.compute_teacher_logits
    monkeypatch.setattr(
        DistillationLoss,
        "compute_teacher_logits",
        lambda self, batch, device: heard.append(len(batch)) or asked(self, batch, device),
    )
    before = curve(run_step(distill_weight=1, steps=6))
    assert sum(heard) == 7  # 24 texts, 16 of which quality is measured on, and one held out
    heard.clear()
    monkeypatch.setattr(DistillRun, "precomputes_teacher_logits", lambda self, tuition: False)
    assert before == pytest.approx(curve(run_step(distill_weight=1, steps=6)), rel=1e-4)
    assert sum(heard) == 24


def test_answers_come_in_the_order_of_their_examples(folders):
    texts = exercises("bert")
    texts.inputs["attention_mask"][:, 5:] = torch.arange(len(texts))[:, None] % 3 > 0
    assert torch.equal(
        teacher_outputs(RunContext(Recipe(), None), texts, lambda part: part.targets), texts.targets
    )


def test_products_in_bfloat16_are_close_and_where_they_gain_nothing_they_are_float32(
    run_step, monkeypatch
):
    plain, half = curve(run_step("resnet")), curve(run_step("resnet", products="bfloat16"))
    assert plain == curve(run_step("resnet", products="float32"))
    assert half == pytest.approx(plain, rel=0.1) and (half == plain) is not multiplies_bfloat16(CPU)
    monkeypatch.setattr(
        "engine.techniques.training.training_setup.multiplies_bfloat16", lambda device: False
    )
    outcome = run_step("resnet", products="bfloat16")
    assert curve(outcome) == plain and any(
        "so training had its products in float32" in note for note in outcome.summary.notes
    )


# --- students -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bytes_alone")
@for_each(("architecture", "student"), CASES)
def test_what_is_written_is_the_student_and_a_forecast_knows_its_bytes(
    architecture, student, folders, tmp_path
):
    recipe = recipe_for(
        architecture,
        folders[architecture],
        tmp_path / "data",
        SHORT | {"steps": 2} | STUDENTS[student],
    )
    outcome = run(recipe, save=tmp_path / "student")
    again = load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32)
    assert forecast(recipe).size_bytes == outcome.summary.result.size_bytes
    assert outcome.summary.result.parameters == again.parameters
    measured = run(
        Recipe.from_dict(
            recipe.model_dump()
            | {"model": str(tmp_path / "student"), "steps": [], "calibration": None}
        )
    )
    assert measured.summary.baseline.loss == outcome.summary.result.loss


@pytest.mark.parametrize("architecture", KINDS)
def test_the_student_loads_again_with_equal_logits(architecture, folders, tmp_path, monkeypatch):
    from engine.pipeline import replacement_writer as succession

    kept = {}
    write = succession.ReplacementWriter.write
    monkeypatch.setattr(
        succession.ReplacementWriter,
        "write",
        lambda self, out: kept.update(heir=self.replacement) or write(self, out),
    )
    run(
        recipe_for(architecture, folders[architecture], tmp_path / "data", SHORT),
        save=tmp_path / "student",
    )
    again, inputs = (
        load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32),
        exercises(architecture).inputs,
    )
    with torch.no_grad():
        assert torch.equal(kept["heir"].model.eval()(**inputs).logits, again.model(**inputs).logits)


@for_each("architecture", [*LANGUAGE_MODELS, "bert"])
def test_every_other_block_begins_with_the_teachers_weights(architecture, tmp_path, folders):
    deep = tiny(
        architecture,
        tmp_path / "deep",
        **{"n_layer" if architecture == "gpt2" else "num_hidden_layers": 4},
    )
    outcome = run(
        recipe_for(architecture, deep, tmp_path / "data", SHORT | {"rate": 0}),
        save=tmp_path / "student",
    )
    rows = outcome.tables.layers
    left = rows[(rows.parameters > 0) & rows.block.ne("")]
    assert {int(block.rpartition(".")[2]) for block in left.block} == {0, 2} and (
        left.relative_error == 0
    ).all()
    gone = rows[rows.parameters == 0]
    assert {int(block.rpartition(".")[2]) for block in gone.block} == {1, 3}


def test_a_resnet_loses_blocks_of_every_stage_but_the_first(run_step, tmp_path):
    run_step("resnet", save=tmp_path / "student")
    assert json.loads((tmp_path / "student" / "config.json").read_text())["depths"] == [1, 1]


@pytest.mark.parametrize(
    ("architecture", "deep", "names"),
    [
        (
            "bert",
            {"num_hidden_layers": 12, "num_attention_heads": 12},
            ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"),
        ),
        (
            "gpt2",
            {"n_layer": 12, "n_head": 12, "n_inner": None},
            ("n_layer", "n_head", "n_embd", "n_inner"),
        ),
        (
            "opt",
            TWELVE,
            ("num_hidden_layers", "num_attention_heads", "word_embed_proj_dim", "ffn_dim"),
        ),
    ],
)
def test_four_layers_of_eight_heads_are_a_third_and_two_thirds_of_twelve(
    architecture, deep, names, tmp_path
):
    """Only the config counts: heads keep their width (4), so the width is 32; the inner one
    follows, or is omitted.
    """
    model = tiny(architecture, tmp_path / "deep", **deep)
    step = SHORT | {"steps": 1, "blocks": 4 / 12, "width": 8 / 12}
    outcome = run(
        recipe_for(architecture, model, tmp_path / "data", step), save=tmp_path / "student"
    )
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert [config[name] for name in names] == [4, 8, 32, None if architecture == "gpt2" else 116]
    assert (
        load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).parameters
        == outcome.summary.result.parameters
    )


def test_a_model_whose_width_has_no_known_name_is_said(folders, tmp_path, monkeypatch, run_step):
    monkeypatch.setattr(
        "engine.techniques.distillation.distill.student_config.INNER_WIDTH_FIELDS", ()
    )
    assert "(width) to 1" in error_message(run_step, "gpt2", width=0.5)


def test_another_model_may_be_the_student(folders, tmp_path, run_step):
    other = tiny("bert", tmp_path / "other", seed=5, num_hidden_layers=1, intermediate_size=64)
    outcome = run_step(student=str(other), save=tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 64)
    assert outcome.summary.result.parameters < outcome.summary.baseline.parameters


@pytest.mark.parametrize("architecture", KINDS)
def test_what_is_distilled_can_be_quantized_in_the_same_run(
    architecture, run_step, folders, tmp_path
):
    small = run_step(
        architecture, {"technique": "bitsandbytes", "block_size": 64}, save=tmp_path / "small"
    )
    assert small.summary.result.size_bytes < run_step(architecture).summary.result.size_bytes
    assert (
        load_model(resolve_model(str(tmp_path / "small")), CPU, torch.float32).parameters
        == small.summary.result.parameters
    )


@pytest.mark.parametrize("architecture", KINDS)
def test_a_model_of_which_structures_were_taken_out_can_be_trained_on(
    architecture, folders, tmp_path
):
    recipe = recipe_for(
        architecture,
        folders[architecture],
        tmp_path / "data",
        {"technique": "structured", "share": 0.5},
        FINE,
    )
    outcome, pruned = (
        run(recipe, save=tmp_path / "small"),
        run(recipe.model_copy(update={"steps": recipe.steps[:1]})),
    )
    assert forecast(recipe).size_bytes == outcome.summary.result.size_bytes
    assert (
        outcome.summary.result.parameters == pruned.summary.result.parameters
        and len(curve(outcome)) == 4
    )


# --- settings -------------------------------------------------------------------------------------


@for_each("architecture", KINDS)
@for_each("setting", ["online", "self", "black-box", "adversarial"])
def test_every_setting_trains_a_student_of_every_kind(setting, architecture, run_step):
    outcome = run_step(architecture, setting=setting, written=8, prompt=4)
    names = set(outcome.tables.curves["name"])
    assert (
        outcome.summary.result.parameters < outcome.summary.baseline.parameters
        and {"loss", "rate", "examples per second"} <= names
    )


def test_together_both_learn_and_neither_waits(run_step):
    outcome = run_step(setting="online", student="same", start="random")
    assert len(curve(outcome, phase="teacher")) == len(curve(outcome)) == 4
    assert curve(outcome, phase="teacher") != curve(outcome)


def test_each_generation_is_taught_by_the_one_before(run_step):
    outcome = run_step(
        setting="self", generations=3, student="same", start="random", distill_weight=1
    )
    losses = [curve(outcome, phase=f"generation {number}") for number in (1, 2, 3)]
    assert all(len(each) == 4 for each in losses) and losses[0] != losses[1] != losses[2]


@pytest.mark.parametrize("stopped", ["training", "asking-teacher"])
def test_generations_that_are_stopped_leave_the_best_of_all(
    run_step, monkeypatch, tmp_path, stopped
):
    """Generation 1 looks five times and is best at step 3, generation 2 is poor: what is written is
    what the first one was.
    """
    values, heard, states = iter([0.1, 0.2, 0.3, 0.9, 0.8]), [], []

    def fixed_quality(model, examples):
        states.append(model.state_dict()["classifier.1.bias"].clone())
        return loop.Quality("accuracy", next(values, 0.2))

    monkeypatch.setattr("engine.training.trainer.held_out_quality", fixed_quality)
    recipe = {
        "setting": "self",
        "steps": 4,
        "student": "same",
        "start": "random",
        "training": Training(samples=16),
    }

    def after() -> bool:
        return any(
            event.stage == stopped and (stopped != "training" or event.network == "generation 2")
            for event in heard
        )

    def report(event):
        heard.extend([event] * (len(states) >= 5))  # once the first generation is finished

    outcome = run_step(
        "resnet", cancelled=after, report=report, save=tmp_path / "student", **recipe
    )
    (said,) = (note for note in outcome.summary.notes if "as requested" in note)
    kept = load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).plain[
        "classifier.1.bias"
    ]
    assert "of generation 2, as requested" in said
    assert said.endswith(
        "the best of all generations is kept: what generation 1 knew at step 3, with "
        "accuracy 90.0%."
    )
    assert torch.equal(kept, states[3])


@pytest.mark.parametrize("architecture", ["llama", "bert", "resnet"])
def test_two_views_of_one_input_come_to_agree(architecture, run_step):
    outcome = run_step(architecture, setting="self", views="two-views", distill_weight=0.5)
    apart, labels, loss = (curve(outcome, name) for name in ("agreement", "labels", "loss"))
    assert len(apart) == 4 and all(each > 0 for each in apart)
    assert loss == pytest.approx(
        [(one + other) / 2 for one, other in zip(labels, apart, strict=True)], rel=1e-4
    )


def test_two_views_are_apart_by_the_mean_of_kl_there_and_back_and_slopes_reach_both():
    one, other = (torch.randn(5, 7, requires_grad=True) for _ in range(2))
    views = TwoViews(
        Distill(setting="self", views="two-views", temperature=1.0),
        None,
        None,
        batch := exercises("bert"),
        other,
    )
    p, q = softmax(one, -1), softmax(other, -1)
    apart = views.agreement_loss(one, batch)
    assert apart.item() == pytest.approx(
        (((p - q) * (p.log() - q.log())).sum(-1).mean() / 2).item(), rel=1e-4
    )
    apart.backward()
    assert one.grad.abs().sum() > 0 and other.grad.abs().sum() > 0


def test_where_nothing_drops_a_view_hides_tokens_or_moves_the_picture_by_a_pixel():
    texts, pictures = (
        EncodedExamples({"input_ids": torch.full((64, 64), 5)}, torch.zeros(64)),
        torch.arange(2 * 36.0).view(2, 1, 6, 6),
    )
    hidden = perturbed_batch(texts, 3).inputs["input_ids"]
    assert set(hidden.unique().tolist()) == {3, 5} and 0.07 < (hidden == 3).float().mean() < 0.13
    inner = perturbed_batch(EncodedExamples({"pixel_values": pictures}, torch.zeros(2)), 0).inputs[
        "pixel_values"
    ][:, 0, 1:-1, 1:-1]
    around = [
        pictures[:, 0, 1 + y : 5 + y, 1 + x : 5 + x] for y, x in ((0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    assert all(any(torch.equal(inner[row], each[row]) for each in around) for row in range(2))
    assert has_dropout(torch.nn.Dropout(0.1)) and not has_dropout(torch.nn.Dropout(0.0))


def test_two_views_have_no_teachers_states():
    with pytest.raises(PlainError, match="two views have no teacher to compare hidden states with"):
        Recipe.from_dict(
            {
                "steps": [
                    {
                        "technique": "distill",
                        "setting": "self",
                        "views": "two-views",
                        "features": "mse",
                    }
                ]
            }
        )


def test_several_teachers_are_heard(run_step, folders, tmp_path):
    other = tiny("bert", tmp_path / "other", seed=9)
    one, both = (
        run_step(distill_weight=1),
        run_step(distill_weight=1, setting="several", teachers=str(other)),
    )
    same = run_step(distill_weight=1, setting="several", teachers=str(folders["bert"]))
    assert curve(one) == pytest.approx(curve(same), abs=1e-5) and curve(one) != pytest.approx(
        curve(both), abs=1e-3
    )


def test_of_a_black_box_only_words_are_seen_and_they_can_be_read(run_step):
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
def test_a_black_box_answers_what_it_is_asked_in_a_template(asks, begins, ends, folders, tmp_path):
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


def test_a_prompt_that_leaves_no_room_for_an_answer_gets_one_sentence(folders, tmp_path):
    step = SHORT | {"setting": "black-box", "written": 4, "prompt": 14, "asks": "few-shot"}
    with pytest.raises(
        PlainError,
        match=(
            r"leaves 0 for an answer, and it takes 8 at least; lower Prompt length "
            r"\(prompt\), or raise Calibration context \(calibration\.context\)\.$"
        ),
    ):
        run(recipe_for("llama", folders["llama"], tmp_path / "data", step))


def test_only_what_the_teacher_wrote_is_learnt_of_a_text(run_step, monkeypatch):
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
def test_what_a_teacher_chose_for_its_student_can_be_read(architecture, reads, run_step, folders):
    rows = run_step(architecture, setting="black-box", written=5).tables.written
    names = set(config_of(resolve_model(str(folders[architecture]))).id2label.values())
    assert len(rows) == 5 and all(rows.prompt.str.match(reads)) and set(rows.continuation) <= names


def test_a_discriminator_that_counts_for_nothing_changes_nothing(run_step):
    assert curve(run_step(setting="adversarial", adversarial_weight=0.0)) == curve(run_step())


# --- on the way -----------------------------------------------------------------------------------


def test_a_step_in_parts_has_the_slopes_of_the_whole(folders):
    def slopes(parts: int) -> list[torch.Tensor]:
        model = load_pretrained(resolve_model(str(folders["bert"]))).float().requires_grad_(True)
        examples = [exercises("bert").subset(rows) for rows in torch.arange(8).chunk(parts)]
        loss = forward_backward(
            model,
            examples,
            accelerator_for(torch.device("cpu")),
            lambda z, b: label_loss(z, b.targets),
        )
        return [
            torch.tensor(loss),
            *(each.grad for each in model.parameters() if each.grad is not None),
        ]

    for one, other in zip(slopes(1), slopes(4), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_where_memory_does_not_suffice_the_next_smaller_part_is_tried_and_said(
    folders, monkeypatch
):
    model, said = (
        load_pretrained(resolve_model(str(folders["bert"]))).float().requires_grad_(True),
        [],
    )
    answers = loop.batch_logits

    def small(model, batch, device):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return answers(model, batch, device)

    monkeypatch.setattr(loop, "batch_logits", small)
    losses = list(
        train_steps(
            model,
            exercises("bert"),
            TrainingConfig(2, 1e-3, 8),
            lambda z, b: label_loss(z, b.targets),
            on_note=said.append,
        )
    )
    assert len(losses) == 2 and said[-1] == (
        "There was not enough memory for 8 examples at once, so each step takes them in 4 parts "
        "from step 1 on."
    )
    monkeypatch.setattr(loop, "batch_logits", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(PlainError, match="a single example"):
        next(
            train_steps(
                model,
                exercises("bert"),
                TrainingConfig(2, 1e-3, 8),
                lambda z, b: label_loss(z, b.targets),
            )
        )


def test_other_errors_are_not_taken_for_a_lack_of_memory(folders, monkeypatch):
    monkeypatch.setattr(
        loop, "batch_logits", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ"))
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        next(
            train_steps(
                torch.nn.Linear(1, 1),
                exercises("bert"),
                TrainingConfig(2, 1e-3, 8),
                lambda z, b: z.sum(),
            )
        )


def test_a_cancelled_training_keeps_the_best_so_far_and_can_be_run_anew(run_step, tmp_path):
    heard = []

    def hear(event):
        heard.extend([event] if event.stage == "training" else [])

    outcome = run_step(
        "resnet",
        steps=200,
        cancelled=lambda: len(heard) > 30,
        report=hear,
        save=tmp_path / "student",
    )
    assert outcome.summary.ended_early and len(curve(outcome)) == 31
    assert any(
        note.startswith("Training was ended at step 31 of 200, as requested")
        for note in outcome.summary.notes
    )
    assert (
        load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).parameters
        == outcome.summary.result.parameters
    )


def test_what_is_kept_is_the_best_that_was_seen_and_of_equals_the_latest(
    run_step, monkeypatch, tmp_path
):
    values, states = iter([0.1, 0.2, 0.3, 0.9, 0.4, 0.9, 0.2]), []

    def fixed_quality(model, examples):
        states.append(model.state_dict()["classifier.1.bias"].clone())
        return loop.Quality("accuracy", next(values, 0.0))

    monkeypatch.setattr("engine.training.trainer.held_out_quality", fixed_quality)
    run_step("resnet", steps=20, batch=8, save=tmp_path / "student")
    kept = load_model(resolve_model(str(tmp_path / "student")), CPU, torch.float32).plain[
        "classifier.1.bias"
    ]
    assert len(states) == 11 and torch.equal(kept, states[5]) and not torch.equal(kept, states[-1])


def test_a_training_without_gain_ends_early_and_says_so(run_step, monkeypatch):
    values = iter([0.5, 0.6])
    monkeypatch.setattr(
        "engine.training.trainer.held_out_quality",
        lambda *_: loop.Quality("accuracy", next(values, 0.1)),
    )
    outcome = run_step("resnet", steps=40, patience=2)
    assert len(curve(outcome)) == 12  # looks every 4 steps: best at 4, nothing gained at 8 and 12
    assert any(
        "Training ended at step 12 of 40: nothing was gained since step 4" in note
        for note in outcome.summary.notes
    )


def test_a_loss_that_is_no_number_stops_at_the_last_good_state(run_step, monkeypatch):
    from engine.techniques.distillation.distill import distillation_loss as tuition

    calls, by_label = [], tuition.batch_label_loss

    def wild(logits, batch):
        calls.append(1)
        return by_label(logits, batch) * (float("nan") if len(calls) > 12 else 1.0)

    monkeypatch.setattr(
        "engine.techniques.distillation.distill.distillation_loss.batch_label_loss", wild
    )
    outcome = run_step("resnet", steps=20, batch=8)
    assert len(curve(outcome)) == 12
    assert any(
        note.startswith("The loss became NaN or infinite at training step 13")
        and "the best so far" in note
        for note in outcome.summary.notes
    )


def test_a_loss_that_never_was_a_number_is_refused(run_step, monkeypatch):
    monkeypatch.setattr(
        "engine.techniques.distillation.distill.distillation_loss.batch_label_loss",
        lambda logits, batch: logits.sum() * float("nan"),
    )
    assert "NaN or infinite at training step 1; lower Learning rate (rate)" in error_message(
        run_step
    )


# --- data -----------------------------------------------------------------------------------------


@pytest.fixture
def write_labeled_csv(tmp_path):
    def write_csv(name, labels, texts=None):
        texts = texts or [f"text {number} of many words" for number in range(len(labels))]
        path = tmp_path / name
        pd.DataFrame({"body": texts, "class": labels}).to_csv(path, index=False)
        return str(path)

    return write_csv


COLUMNS = {"text_column": "body", "label_column": "class"}


def test_local_files_are_learnt_from_and_judged_by_for_as_many_epochs_as_asked_for(
    run_step, write_labeled_csv
):
    data = {
        "train": write_labeled_csv("train.csv", [0, 1, 2, 0] * 5),
        "validation": write_labeled_csv("validation.csv", [0, 1, 2] * 2),
        **COLUMNS,
        "epochs": 1.5,
    }
    outcome = run_step(training=data, batch=4)
    assert len(curve(outcome)) == 8  # 1.5 times 20 examples, 4 a step, rounded up
    assert set(pd.Series(curve(outcome, "accuracy")) * 6 % 1) == {0.0}


def test_texts_without_labels_are_answered_by_the_teacher(run_step, write_labeled_csv):
    data = {
        "train": write_labeled_csv("train.csv", [0, 1, 2, 0] * 5),
        "unlabelled": write_labeled_csv("more.csv", [""] * 12),
        **COLUMNS,
    }
    plain = run_step(
        training={name: value for name, value in data.items() if name != "unlabelled"},
        distill_weight=1,
    )
    assert curve(run_step(training=data, distill_weight=1)) != curve(plain)
    assert "remove Unlabeled examples (training.unlabelled)" in error_message(
        run_step, technique="fine-tune", training=data
    )


def test_pictures_may_come_without_labels_too(folders, tmp_path):
    data = Training(**few_digits(20, 0, tmp_path), unlabelled="bundled:digits")
    train = load_training_data(
        ImageClassification(), None, resolve_model(str(folders["resnet"])), 100, data
    ).train
    assert (
        train.inputs["pixel_values"].shape == (120, 1, 16, 16)
        and (train.targets == IGNORE_INDEX).sum() == 100
    )


@for_each(
    ("labels", "words"),
    [
        ([1] * 8, "are of one class, LABEL_1, so there is nothing to tell apart"),
        ([0, 7, 1, 2], "has labels up to 7 but the model knows 3 classes"),
        ([""] * 6, "has no labels"),
        ([], "has no rows"),
        ([0], "has 1 labeled examples to train on"),
    ],
)
def test_data_that_nothing_can_be_learnt_from_is_said_in_a_sentence(
    labels, words, run_step, write_labeled_csv
):
    assert words in error_message(
        run_step, training={"train": write_labeled_csv("train.csv", labels), **COLUMNS}
    )


def test_data_without_a_column_of_labels_is_said_in_a_sentence(run_step, write_labeled_csv):
    data = {"train": write_labeled_csv("train.csv", [0, 1] * 4), "text_column": "body"}
    assert "has no column 'label'; its columns are body, class" in error_message(
        run_step, training=data
    )


def test_epochs_and_data_to_learn_from_need_a_step_that_learns():
    with pytest.raises(PlainError, match="no step trains"):
        Recipe.from_dict({"training": {"epochs": 1}})
    with pytest.raises(PlainError, match="which counts steps"):
        Recipe.from_dict({"training": {"epochs": 1}, "steps": [{"technique": "gradual"}]})
    assert Recipe.from_dict(
        {"steps": [{"technique": "gradual"}], "training": {"train": "a.csv"}}
    ).training == Training(train="a.csv")


def test_a_recipe_without_data_to_learn_from_has_the_key_it_always_had():
    plain = Recipe.from_dict({"steps": [{"technique": "bitsandbytes"}]})
    assert plain.key() != plain.model_copy(update={"training": Training(epochs=1)}).key()
    assert "training" not in plain.to_yaml()


# --- strangers ------------------------------------------------------------------------------------


def test_models_that_cannot_learn_from_one_another_are_told_apart_before_the_run(
    run_step, folders, tmp_path
):
    heard = []
    assert "is made for image-classification" in error_message(
        run_step, student=str(folders["resnet"]), report=heard.append
    )
    assert not any(event.stage == "measuring-original" for event in heard)
    assert "is made for image-classification" in error_message(
        run_step, setting="several", teachers=str(folders["resnet"])
    )
    assert "no further teachers" in error_message(run_step, setting="several")
    more = tiny("bert", tmp_path / "more", num_labels=4)
    assert "knows the classes label_0, label_1, label_2, label_3" in error_message(
        run_step, student=str(more)
    )
    cut = tiny("bert", tmp_path / "cut")
    (cut / "tokenizer.json").write_text(
        (cut / "tokenizer.json").read_text().replace('"<mask>"', '"<blank>"')
    )
    assert "tokenizes text differently" in error_message(run_step, student=str(cut))


def test_what_has_no_heads_and_what_has_no_width_is_said(run_step):
    assert "has no heads; set " in error_message(run_step, "resnet", heads=0.5)
    with pytest.raises(PlainError, match="already removes heads"):
        Recipe.from_dict({"steps": [{"technique": "distill", "width": 0.5, "heads": 0.5}]})
