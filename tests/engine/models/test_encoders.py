"""Students that are bare encoders of the Hub: a head is drawn, the first blocks are taken, and what
does not fit is found before the run.
"""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from engine.errors import PlainError
from engine.models.layers import layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.step.pruning_plan import TechniqueInput
from engine.techniques.hooks import plan_removal
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.structured.heads import head_groups
from engine.techniques.pruning.structured.neurons import neuron_groups
from tests.answers import forecast
from tests.hub import serving
from tests.recipes import recipe_for
from tests.tiny import SENTENCES, tiny

CPU = torch.device("cpu")
RESTING = {"technique": "distill", "steps": 2, "batch": 4, "rate": 0}
NAMES = {
    "id2label": {0: "safe", 1: "odd", 2: "phishing"},
    "label2id": {"safe": 0, "odd": 1, "phishing": 2},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A classifier that teaches, and an encoder that has learned to fill in words."""
    return {
        name: tiny(name, tmp_path_factory.mktemp(name), **more)
        for name, more in (("bert", NAMES), ("encoder", {}), ("distilbert", NAMES))
    }


@pytest.fixture
def hub(models, tmp_path, monkeypatch):
    with serving({"tiny/teacher": models["bert"], "tiny/encoder": models["encoder"]}) as served:
        served.point_here(monkeypatch, tmp_path / "home")
        yield served


@pytest.fixture
def learning(tmp_path):
    """The recipe of a student; its data are CSV files with a column of texts and one of labels."""
    texts = [f"{number} {sentence}" for number in range(6) for sentence in SENTENCES]
    data = {"text": texts, "labels": ["safe", "odd", "phishing"] * 6}
    pd.DataFrame(data).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame(data).iloc[:9].assign(text=texts[-9:]).to_csv(tmp_path / "test.csv", index=False)

    def make_recipe(teacher, student, **step) -> Recipe:
        columns = {"text_column": "text", "label_column": "labels"}
        task = {
            "kind": "text-classification",
            "data": str(tmp_path / "test.csv"),
            "length": 32,
            **columns,
        } | step.pop("task", {})
        training = {"train": str(tmp_path / "train.csv"), "epochs": 1}
        config = RESTING | {"student": str(student)} | step
        seed = config.pop("seed", 0)
        return Recipe.from_dict(
            {
                "model": str(teacher),
                "task": task,
                "training": training,
                "steps": [config],
                "seed": seed,
                "device": "cpu",
                "speed": False,
            }
        )

    return make_recipe


def saved_student(recipe: Recipe, folder) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and configuration of the student that a run has saved."""
    run(recipe, save=folder)
    student = load_model(resolve_model(str(folder)), CPU, torch.float32)
    dense = {
        f"{layer.name}.weight": student.model.get_submodule(layer.name).stored.to_dense()
        for layer in student.layers
    }
    return dense | student.plain, json.loads((folder / "config.json").read_bytes())


def test_a_hub_encoder_becomes_a_student_of_its_first_blocks_with_a_new_head(
    hub, models, learning, tmp_path
):
    recipe = learning("tiny/teacher", "tiny/encoder", student_blocks=2, student_heads=8)
    student, config = saved_student(recipe, tmp_path / "student")
    file = load_file(models["encoder"] / "model.safetensors")
    kept = {
        name: value
        for name, value in file.items()
        if name.startswith("distilbert.") and ".layer.2." not in name
    }
    assert kept and all(torch.equal(student[name], value) for name, value in kept.items())
    assert student.keys() - kept.keys() == {
        f"{name}.{part}" for name in ("pre_classifier", "classifier") for part in ("weight", "bias")
    }
    assert (config["n_layers"], config["n_heads"]) == (2, 8) and list(
        config["id2label"].values()
    ) == ["safe", "odd", "phishing"]
    assert config["architectures"] == ["DistilBertForSequenceClassification"]
    size = sum(path.stat().st_size for path in (tmp_path / "student").glob("*.safetensors"))
    assert forecast(recipe).size_bytes == size


def test_the_seed_changes_only_the_new_head(models, learning, tmp_path):
    one, same, other = (
        saved_student(learning(models["bert"], models["encoder"], seed=seed), tmp_path / name)[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(one[name], value) for name, value in same.items())
    assert {name for name in one if not torch.equal(one[name], other[name])} == {
        "pre_classifier.weight",
        "classifier.weight",
    }


def test_more_heads_of_an_equal_width_compute_something_else_and_save_nothing(
    models, learning, tmp_path
):
    runs = [
        run(
            learning(models["bert"], models["encoder"], student_heads=heads),
            save=tmp_path / str(heads),
        )
        for heads in (0, 8)
    ]
    assert len({outcome.summary.result.parameters for outcome in runs}) == 1
    inputs = {"input_ids": torch.arange(24).view(2, 12)}
    four, eight = (
        load_model(resolve_model(str(tmp_path / heads)), CPU, torch.float32).model(**inputs).logits
        for heads in ("0", "8")
    )
    assert not torch.allclose(four, eight)
    said = [" ".join(outcome.summary.notes) for outcome in runs]
    assert all("has no classification head" in each for each in said) and [
        "that alone saves nothing" in each for each in said
    ] == [False, True]


def test_a_classifier_may_be_a_student_of_fewer_blocks_too(models, learning, tmp_path):
    student, config = saved_student(
        learning(models["distilbert"], models["distilbert"], student_blocks=1), tmp_path / "student"
    )
    assert config["n_layers"] == 1 and not any(".layer.1." in name for name in student)
    file = load_file(models["distilbert"] / "model.safetensors")
    assert torch.equal(student["classifier.weight"], file["classifier.weight"])


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"student_blocks": 4},
            r"has 3 blocks, fewer than the 4 of .* \(student_blocks\); set it to 3 at most",
        ),
        ({"student_heads": 7}, "has a width of 48, which 7 heads do not divide"),
        (
            {"task": {"length": 100}},
            r"reads at most 64 tokens, and Maximum length \(task\.length\) is 100",
        ),
    ],
)
def test_unsupported_encoder_students_are_refused_before_the_run(
    step, words, models, learning, tmp_path
):
    student = tiny("encoder", tmp_path / "short", max_position_embeddings=64)
    heard = []
    with pytest.raises(PlainError, match=words):
        run(learning(models["bert"], student, **step), report=heard.append)
    assert not any(event.stage == "measuring-original" for event in heard)


def test_other_tokens_are_refused_and_other_padding_is_accepted(models, learning, tmp_path):
    """A tokenizer's file notes how long texts were cut and padded when it was saved, which changes
    no token.
    """
    student = tiny("encoder", tmp_path / "student")
    file = student / "tokenizer.json"
    cut = {"direction": "Right", "max_length": 32, "strategy": "LongestFirst", "stride": 0}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"truncation": cut}))
    run(learning(models["bert"], student))
    file.write_text(file.read_text().replace('"<mask>"', '"<blank>"'))
    with pytest.raises(PlainError, match="tokenizes text differently from"):
        run(learning(models["bert"], student))


def test_an_encoder_without_a_teacher_is_a_masked_language_model(models):
    folder = resolve_model(str(models["encoder"]))
    assert (folder.kind, folder.without_head) == ("masked-language-modeling", False)
    headed = resolve_model(str(models["encoder"]), head_for="text-classification")
    assert (headed.kind, headed.without_head, headed.architecture) == (
        "text-classification",
        True,
        "DistilBertForSequenceClassification",
    )


def test_an_encoder_that_lacks_a_block_is_refused(models, learning, tmp_path):
    short = tiny("encoder", tmp_path / "short", n_layers=2)
    (short / "config.json").write_text((models["encoder"] / "config.json").read_text())
    with pytest.raises(PlainError, match=r"lacks distilbert\.transformer\.layer\.2"):
        run(learning(models["bert"], short))


# --- its blocks -----------------------------------------------------------------------------------


def test_heads_and_neurons_of_a_distilbert_are_found_in_every_block(models):
    folder = resolve_model(str(models["distilbert"]))
    original = load_model(folder, CPU, torch.float32)
    subject = TechniqueInput(original, folder, frozenset(layer.name for layer in original.layers))
    assert [family.size for family in head_groups(subject, Structured())] == [4, 4, 4] and [
        family.size for family in neuron_groups(subject)
    ] == [172] * 3
    cut = plan_removal(Structured(what="heads", share=0.5), subject).kept_indices
    assert len(cut) == 12 and all(
        layer.block for layer in layers_of(load_pretrained(folder)) if layer.name in cut
    )


def test_a_distilbert_with_fewer_heads_loads_again_and_answers(models, tmp_path):
    step = {"technique": "structured", "what": "heads", "share": 0.5}
    outcome = run(
        recipe_for("distilbert", models["distilbert"], tmp_path / "data", step),
        save=tmp_path / "saved",
    )
    again = run(
        Recipe.from_dict(
            recipe_for("distilbert", tmp_path / "saved", tmp_path / "data").model_dump()
            | {"steps": []}
        )
    )
    assert again.summary.baseline.loss == outcome.summary.result.loss
