"""Masked language models are evaluated on masked tokens, and compressed and trained like others."""

import pytest
import torch
from transformers import AutoModelForMaskedLM

from engine.calibration.gradient_stats import example_loss
from engine.errors import PlainError
from engine.evaluation import calibration_batches, evaluate
from engine.evaluation.masked import NOT_MASKED, masked_text, masked_windows, special_tokens
from engine.evaluation.progress import ignore_progress
from engine.models.loading import load_pretrained, tokenizer_of
from engine.models.model_source import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.tasks import MaskedLanguageModeling
from engine.training.datasets import load_recipe_training_data
from engine.training.losses import aligned_targets
from tests.answers import forecast, model_view, soft_targets
from tests.architectures import MASKED, save_random_model
from tests.cases import for_each
from tests.tiny import BOS, EOS, MASK, SENTENCES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders by architecture."""
    return {
        name: save_random_model(build, tmp_path_factory.mktemp(name) / "model", "encoder")
        for name, build in MASKED.items()
    }


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"{index} {SENTENCES[index % 3]}" for index in range(60)))
    return str(path)


def task_for(text: str, **fields) -> MaskedLanguageModeling:
    return MaskedLanguageModeling(text=text, context=32, tokens=600, **fields)


def recipe_for(model, text: str, *steps: dict, **fields) -> Recipe:
    calibration = {"calibration": {"text": text, "samples": 6, "context": 32}}
    measured = {
        "task": {**task_for(text).model_dump(), **fields.pop("task", {})},
        "device": "cpu",
        "speed": False,
    }
    return Recipe.from_dict(
        {"model": str(model), "steps": list(steps), **measured, **calibration, **fields}
    )


@for_each("architecture", MASKED)
def test_loss_is_the_one_that_transformers_computes_from_the_labels(architecture, models, text):
    folder = resolve_model(str(models[architecture]))
    found = evaluate(task_for(text), load_pretrained(folder), folder)
    _, inputs, labels = masked_text(
        task_for(text), tokenizer_of(folder), load_pretrained(folder).config, ignore_progress
    )
    reference = AutoModelForMaskedLM.from_pretrained(models[architecture]).eval()
    with torch.inference_mode():
        due = reference(
            input_ids=inputs, attention_mask=torch.ones_like(inputs), labels=labels
        ).loss.item()
        right = (
            (reference(input_ids=inputs).logits.argmax(-1) == labels)[labels != NOT_MASKED]
            .float()
            .mean()
            .item()
        )
    assert found.scores["loss"] == pytest.approx(due, rel=1e-5)
    assert found.scores["perplexity"] == pytest.approx(torch.tensor(due).exp().item(), rel=1e-4)
    assert found.scores["accuracy"] == pytest.approx(right)
    assert found.protocol.targets == len(found.guesses) == (labels != NOT_MASKED).sum()


def test_the_same_tokens_are_hidden_each_time_and_as_many_in_every_window(models):
    stream, tokenizer = (
        torch.arange(4, 274).numpy(),
        tokenizer_of(resolve_model(str(models["bert"]))),
    )
    inputs, labels = masked_windows(stream, tokenizer, 32, 0.15, "text")
    assert all(
        torch.equal(*pair)
        for pair in zip(
            (inputs, labels), masked_windows(stream, tokenizer, 32, 0.15, "text"), strict=True
        )
    )
    hidden = labels != NOT_MASKED
    assert (
        (hidden.sum(1) == round(0.15 * 30)).all()
        and (inputs[hidden] == MASK).all()
        and not (inputs[~hidden] == MASK).any()
    )
    assert torch.equal(
        torch.where(hidden, labels, inputs)[:, 1:-1].flatten(), torch.from_numpy(stream)
    )
    assert (
        (inputs[:, 0] == BOS).all()
        and (inputs[:, -1] == EOS).all()
        and special_tokens(tokenizer) == ([BOS], [EOS])
    )


def test_the_requested_share_is_masked(models, text):
    folder = resolve_model(str(models["bert"]))
    for share, each in ((0.15, 4), (0.5, 15)):
        protocol = evaluate(
            task_for(text, mask_share=share), load_pretrained(folder), folder
        ).protocol
        assert protocol.targets == protocol.windows * each and f"{share:.0%}" in protocol.measure


@for_each(
    "step",
    [
        {"technique": "round-to-nearest"},
        {"technique": "gptq", "group_size": 16},
        {"technique": "structured", "what": "heads", "share": 0.5},
        {"technique": "taylor", "sparsity": 0.3},
        {"technique": "blocks"},
        {"technique": "magnitude"},
    ],
)
def test_the_saved_folder_of_a_masked_language_model_has_the_scores_of_its_run(
    step, models, text, tmp_path, bytes_alone
):
    recipe = recipe_for(models["bert"], text, step)
    outcome = run(recipe, save=tmp_path / "saved")
    again = run(
        recipe.model_copy(update={"model": str(tmp_path / "saved"), "steps": ()})
    ).summary.result
    result = outcome.summary.result
    assert (again.loss, again.accuracy, again.size_bytes) == (
        result.loss,
        result.accuracy,
        result.size_bytes,
    )
    assert forecast(recipe).size_bytes == result.size_bytes
    assert outcome.tables.samples.empty and "masked" in outcome.summary.protocol.measure


@pytest.mark.parametrize(
    "step",
    [
        {"technique": "distill", "steps": 2, "batch": 4, "rate": 1e-3},
        {"technique": "qat", "steps": 2, "batch": 4},
        {"technique": "gradual", "steps": 2, "prune_every": 1, "batch": 4, "sparsity": 0.5},
    ],
)
def test_a_masked_language_model_is_trained_on_masked_tokens(step, models, text):
    assert run(recipe_for(models["distilbert"], text, step)).summary.result.loss > 0


def test_training_compares_each_hidden_token_with_its_own_place(models, text):
    recipe, folder = (
        recipe_for(models["bert"], text, {"technique": "distill"}),
        resolve_model(str(models["bert"])),
    )
    exercises, model = (
        load_recipe_training_data(recipe, folder).train.subset(slice(6)),
        load_pretrained(folder),
    )
    with torch.inference_mode():
        logits = model(**exercises.inputs).logits
    flat, due = aligned_targets(logits, exercises.targets)
    batch = calibration_batches(recipe.calibration, recipe.task, folder)[0]
    assert torch.equal(batch["input_ids"], exercises.inputs["input_ids"])
    assert torch.equal(due.view(6, -1), batch["labels"][:, :-1])
    with torch.inference_mode():
        assert torch.nn.functional.cross_entropy(flat, due).item() == pytest.approx(
            model(**batch).loss.item(), rel=1e-5
        )


def test_the_loss_of_calibration_data_is_that_of_its_hidden_tokens(models, text):
    recipe, folder = (
        recipe_for(models["bert"], text, {"technique": "taylor"}),
        resolve_model(str(models["bert"])),
    )
    example = {
        key: value[:1]
        for key, value in calibration_batches(recipe.calibration, recipe.task, folder)[0].items()
    }
    model = load_pretrained(folder)
    with torch.inference_mode():
        assert example_loss(model, example, CPU).item() == pytest.approx(
            model(**example).loss.item(), rel=1e-6
        )


def test_live_questions_about_a_masked_language_model_are_answered(models, text):
    view = model_view(str(models["bert"]))
    assert view.kind == "masked-language-modeling" and view.longest == 128
    asked = {"task": task_for(text).model_dump(mode="json")}
    said = soft_targets(str(models["bert"]), asked, 0, 2.0)
    assert (
        len(said.answers) == 12 and 0 < said.answers.plain.sum() <= 1 + 1e-6 and "▁" in said.example
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": {"context": 3}}, "has no room for text next to 2 special tokens"),
        ({"task": {"context": 129}}, r"set Context \(task\.context\) to at most 128"),
    ],
)
def test_a_failing_model_gives_one_message(fields, says, models, text):
    with pytest.raises(PlainError, match=says):
        run(recipe_for(models["bert"], text, **fields))


def test_a_tokenizer_without_a_mask_token_is_refused(models, text, tmp_path):
    folder = save_random_model(MASKED["bert"], tmp_path / "model", "encoder")
    tokenizer = tokenizer_of(resolve_model(str(folder)))
    tokenizer.mask_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(PlainError, match="has no mask token"):
        run(recipe_for(folder, text))


def test_a_masked_language_model_cannot_be_a_black_box_teacher(models, text):
    step = {"technique": "distill", "setting": "black-box", "steps": 2, "batch": 4}
    with pytest.raises(PlainError, match="cannot generate text"):
        run(recipe_for(models["bert"], text, step))
