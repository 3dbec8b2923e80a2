"""Quantization-aware training in whole runs: it begins at rounding, what was trained is what is
written, and what is refused is said.
"""

import pytest
import torch

from engine.errors import PlainError
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.recipe.tasks import Training
from engine.techniques.training import finetuner as learner_module
from engine.training import Quality
from engine.training import trainer as study
from tests.answers import forecast
from tests.cases import covering, for_each
from tests.recipes import recipe_for

CPU = torch.device("cpu")
ARCHITECTURES = ("llama", "llama-tied", "gpt2", "bert", "resnet")
SHORT = {"technique": "qat", "bits": 2, "steps": 3, "batch": 4, "rate": 1e-2, "look_every": 1}
PLAIN = {"technique": "round-to-nearest", "bits": 2, "range": "absmax"}
STATIC = {"activation_range": "static", "observer": "mse"}


@pytest.fixture
def run_step(folders, tmp_path):
    def run_recipe(
        architecture, *steps, save=None, report=lambda *_: None, cancelled=lambda: False, **fields
    ):
        return run(
            recipe_for(architecture, folders[architecture], tmp_path / "data", *steps, **fields),
            save=save,
            report=report,
            cancelled=cancelled,
        )

    return run_recipe


def logits_of(folder, architecture) -> torch.Tensor:
    model = load_model(resolve_model(str(folder)), CPU, torch.float32).model
    draw = torch.Generator().manual_seed(0)
    inputs = (
        {"pixel_values": torch.randn(2, 1, 16, 16, generator=draw)}
        if architecture == "resnet"
        else {"input_ids": torch.arange(4, 36)[None]}
    )
    with torch.inference_mode():
        return model(**inputs).logits


# --- where it begins, and what is written ---------------------------------------------------------


@for_each(
    ("architecture", "options"),
    covering(
        ARCHITECTURES,
        [
            {},
            {"learn_scales": True},
            {"learn_scales": True, "distill_weight": 1.0},
            {"scheme": "asymmetric"},
        ],
    ),
)
def test_training_at_rate_zero_is_rounding_to_nearest(architecture, options, run_step):
    trained, plain = (
        run_step(architecture, SHORT | options | {"rate": 0}),
        run_step(architecture, PLAIN | {k: v for k, v in options.items() if k == "scheme"}),
    )
    assert (
        trained.summary.result.loss == plain.summary.result.loss
        and trained.summary.result.size_bytes == plain.summary.result.size_bytes
    )
    assert trained.tables.layers.relative_error.equals(plain.tables.layers.relative_error)


@for_each(
    ("architecture", "step"),
    covering(
        ARCHITECTURES,
        [
            SHORT,
            SHORT | {"learn_scales": True, "activation_bits": 6, "pull": 1.0},
            {**SHORT, "technique": "bitnet"},
            SHORT | {"activation_bits": 4, **STATIC},
        ],
    ),
)
def test_the_file_that_is_loaded_again_answers_as_the_model_that_was_trained(
    architecture, step, run_step, monkeypatch, kept_last, tmp_path
):
    """Logits of the trained model and of the saved file."""
    step = {
        key: value for key, value in step.items() if step["technique"] != "bitnet" or key != "bits"
    }
    heard = []
    learn = learner_module.Finetuner.train

    def listening(self):
        learn(self)
        draw = torch.Generator().manual_seed(0)
        pixels = torch.randn(2, 1, 16, 16, generator=draw)
        inputs = (
            {"pixel_values": pixels}
            if architecture == "resnet"
            else {"input_ids": torch.arange(4, 36)[None]}
        )
        with torch.inference_mode():
            heard.append(self.trainable.model.eval()(**inputs).logits)

    monkeypatch.setattr(learner_module.Finetuner, "train", listening)
    run_step(architecture, step, save=tmp_path / "saved")
    torch.testing.assert_close(
        logits_of(tmp_path / "saved", architecture), heard[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("observer", ["min-max", "percentile"])
def test_static_ranges_are_what_the_observer_reads_off_the_model_before_it_is_rounded(
    observer, run_step, kept_last, tmp_path
):
    """Nearly those of post-training quantization with 8-bit weights, which observes inputs behind
    rounded layers.
    """
    trained = SHORT | {"activation_bits": 6, "activation_range": "static", "observer": observer}
    plain = {"technique": "activations", "activation_bits": 6, "observer": observer}
    for name, step in (("trained", trained), ("plain", plain)):
        run_step("bert", step, save=tmp_path / name)
    trained, stored = (
        load_model(resolve_model(str(tmp_path / name)), CPU, torch.float32).model
        for name in ("trained", "plain")
    )
    for name in ("query", "value"):
        one, other = (
            model.bert.encoder.layer[1].attention.self.get_submodule(name).stored
            for model in (trained, stored)
        )
        assert (
            one.scale.item() == pytest.approx(other.scale.item(), rel=0.02)
            and abs(one.zero - other.zero) <= 1
        )
    first = trained.bert.encoder.layer[0].attention.self.query.stored
    inputs = torch.tensor([[-100.0, 0.0, 100.0]])
    low, zero, high = first.quantized_inputs(inputs)[0].tolist()
    assert (high - low) / first.scale.item() == pytest.approx(63) and zero == 0


def test_static_ranges_stay_as_they_were_while_the_model_learns(run_step, kept_last, tmp_path):
    scales = []
    for steps in (1, 6):
        run_step(
            "resnet",
            SHORT | {"activation_bits": 6, "activation_range": "static", "steps": steps},
            save=tmp_path / str(steps),
        )
        model = load_model(resolve_model(str(tmp_path / str(steps))), CPU, torch.float32).model
        scales.append(
            [
                module.stored.scale.item()
                for module in model.modules()
                if getattr(getattr(module, "stored", None), "scale", None) is not None
            ]
        )
    assert scales[0] == scales[1] and len(scales[0]) > 5


def test_it_learns(run_step, kept_last):
    curves = run_step("resnet", SHORT | {"steps": 40, "batch": 32}).tables.curves
    loss = curves[curves.name == "loss"].value
    assert loss.tail(5).mean() < loss.head(5).mean()


def test_every_step_has_its_terms_and_looks_have_a_quality(run_step):
    curves = run_step(
        "bert", SHORT | {"distill_weight": 0.25, "pull": 2.0, "look_every": 2}
    ).tables.curves
    assert (curves.phase == "qat").all()
    for name in ("loss", "labels", "teacher", "regularizer", "rate"):
        assert curves[curves.name == name].step.tolist() == [1, 2, 3]
    assert curves[curves.name == "accuracy"].step.tolist() == [0, 2, 3]
    by_step = curves[curves.step > 0].pivot_table(index="step", columns="name", values="value")
    paid = 0.75 * by_step.labels + 0.25 * by_step.teacher + by_step.regularizer
    assert paid.tolist() == pytest.approx(by_step.loss.tolist(), rel=1e-5)


def test_the_best_look_is_what_is_stored_also_when_it_is_the_first(run_step, monkeypatch):
    said = iter([0.9, 0.5, 0.4, 0.3])
    monkeypatch.setattr(study, "held_out_quality", lambda *_: Quality("accuracy", next(said)))
    assert (
        run_step("bert", SHORT).summary.result.loss == run_step("bert", PLAIN).summary.result.loss
    )


def test_runs_repeat_to_the_bit(run_step):
    first, second = (run_step("resnet", SHORT | {"learn_scales": True}) for _ in range(2))
    one, other = (
        curves[curves.name != "examples per second"]
        for curves in (first.tables.curves, second.tables.curves)
    )
    assert one.equals(other) and first.summary.result.loss == second.summary.result.loss


def test_step_sizes_are_learned_only_if_requested(run_step, kept_last, tmp_path):
    saved = {}
    for learn in (False, True):
        run_step(
            "bert",
            SHORT | {"learn_scales": learn, "range": "mse", "rate": 1e-1},
            save=tmp_path / str(learn),
        )
        layers = load_model(resolve_model(str(tmp_path / str(learn))), CPU, torch.float32)
        stored = layers.model.bert.encoder.layer[0].intermediate.dense.stored
        saved[learn] = stored.scales.float()
        assert stored.scales.dtype == torch.float16
    assert not torch.equal(saved[False], saved[True])


def test_random_weights_are_the_architectures_and_the_seeds(run_step):
    bitnet = {
        "technique": "bitnet",
        "start": "random",
        "rate": 0,
        "steps": 1,
        "batch": 4,
        "activation_bits": 0,
    }
    one, same, other = (run_step("bert", bitnet, seed=seed) for seed in (1, 1, 2))
    checkpoint = run_step("bert", bitnet | {"start": "checkpoint"}, seed=1)
    assert one.summary.result.loss == same.summary.result.loss
    assert len({each.summary.result.loss for each in (one, other, checkpoint)}) == 3
    assert (
        checkpoint.summary.result.loss
        == run_step("bert", {"technique": "ternary"}).summary.result.loss
    )


# --- after other steps ----------------------------------------------------------------------------


def test_fine_tuning_after_a_quantizer_begins_at_its_weights(run_step):
    gptq = {"technique": "gptq", "bits": 3, "group_size": 32, "activation_order": False}
    alone, after = (
        run_step("llama", gptq),
        run_step("llama", gptq, SHORT | {"bits": 8, "granularity": "channel", "rate": 0}),
    )
    errors = [
        outcome.tables.layers.set_index("name").relative_error.dropna()
        for outcome in (alone, after)
    ]
    assert (errors[0] - errors[1]).abs().max() < 0.01  # 8 bits hold what 3 bits have left


@pytest.mark.usefixtures("bytes_alone")
@pytest.mark.parametrize(
    "step",
    [SHORT, SHORT | {"learn_scales": True}, {"technique": "bitnet", "steps": 3, "batch": 4}],
    ids=["qat", "lsq", "bitnet"],
)
def test_zeros_stay_zero_through_training_and_the_size_is_the_forecast(
    step, run_step, folders, tmp_path, kept_last
):
    pruned = {"technique": "magnitude", "sparsity": 0.6}
    outcome = run_step("gpt2", pruned, step)
    treated = outcome.tables.layers[outcome.tables.layers.technique != ""]
    assert (treated.sparsity >= 0.59).all()
    recipe = recipe_for("gpt2", folders["gpt2"], tmp_path / "data", pruned, step)
    assert forecast(recipe).size_bytes == outcome.summary.result.size_bytes


@pytest.mark.usefixtures("bytes_alone")
@for_each(
    ("architecture", "step"),
    covering(
        ARCHITECTURES,
        [
            SHORT,
            SHORT | {"learn_scales": True, "bits": 3, "granularity": "channel"},
            SHORT | {"activation_bits": 8, **STATIC},
            {"technique": "bitnet", "steps": 1, "batch": 4},
        ],
    ),
)
def test_the_forecast_is_what_is_written(architecture, step, run_step, folders, tmp_path):
    recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", step)
    assert forecast(recipe).size_bytes == run(recipe).summary.result.size_bytes


def test_more_steps_take_longer(folders, tmp_path):
    few, many = (
        forecast(
            recipe_for("bert", folders["bert"], tmp_path / "data", SHORT | {"steps": steps})
        ).seconds
        for steps in (4, 4000)
    )
    assert many > 5 * few


def test_the_teacher_is_the_recipes_own_model_whatever_came_before(run_step, monkeypatch):
    taught = []
    taught_by = learner_module.batch_logits

    def listening(model, batch, device):
        taught.append(model)
        return taught_by(model, batch, device)

    monkeypatch.setattr(learner_module, "batch_logits", listening)
    step = SHORT | {"distill_weight": 1.0, "steps": 1}
    run_step("bert", {"technique": "round-to-nearest", "bits": 2}, step)
    assert len(taught) == 1 and {
        type(m.stored).__name__ for m in taught[0].modules() if hasattr(m, "stored")
    } == {"DenseWeight"}


# --- what is refused ------------------------------------------------------------------------------


@for_each(
    ("step", "words"),
    [
        ({"technique": "qat", "bits": 1}, "from 2 to 8"),
        ({"technique": "qat", "steps": 0}, "from 1 to 100000"),
        ({"technique": "qat", "activation_bits": 1}, "allows only zero; set it to 2 to 8, or to 0"),
        ({"technique": "bitnet", "activation_bits": 1}, "allows only zero"),
        (
            {"technique": "qat", "learn_scales": True, "scales": "power-of-two"},
            "set scales to free, or learn_scales to false",
        ),
        ({"technique": "qat", "pull": -1}, "from 0 to 1000"),
        ({"technique": "bitnet", "start": "rnadom"}, "checkpoint or random"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [step]})
    assert "\n" not in str(refused.value)


def test_inputs_that_a_step_before_rounds_are_not_forgotten_in_silence(run_step):
    with pytest.raises(
        PlainError,
        match=r"^bert\.\S+: The step before rounds its inputs, and this one would not",
    ):
        run_step("bert", {"technique": "activations", "mode": "dynamic"}, SHORT)


def test_random_weights_need_the_shapes_of_the_configuration(run_step):
    uneven = {
        "technique": "structured",
        "what": "neurons",
        "score": "l1",
        "scope": "global",
        "share": 0.3,
    }
    with pytest.raises(
        PlainError,
        match=(
            "has another shape than in config.json, so it cannot start from random weights; set "
            r"Initial weights \(start\) to checkpoint"
        ),
    ):
        run_step(
            "llama", uneven, {"technique": "bitnet", "start": "random", "steps": 1, "batch": 4}
        )


def test_a_cancelled_training_keeps_its_best_and_says_where_it_ended(run_step):
    heard = []
    outcome = run_step(
        "bert",
        SHORT,
        report=lambda event: heard.append(getattr(event, "loss", None) is not None),
        cancelled=lambda: any(heard),
    )
    assert sum(heard) == 1 and outcome.summary.ended_early
    assert any(
        note.startswith("Training was ended at step 1 of 3") for note in outcome.summary.notes
    )


# --- a course like any other's --------------------------------------------------------------------

TRAINED = [
    SHORT,
    {"technique": "bitnet", "steps": 3, "batch": 4, "rate": 1e-2, "look_every": 1},
    *(
        {"technique": name, "steps": 3, "batch": 4, "rate": 1e-2, "look_every": 1, "rank": 2}
        for name in ("lora", "qlora")
    ),
]
each_technique = for_each("step", TRAINED, ids=lambda step: step["technique"])


def losses(outcome) -> list[float]:
    rows = outcome.tables.curves
    return rows[rows["name"] == "loss"]["value"].tolist()


@each_technique
def test_gradient_accumulation_gives_the_same_training(step, run_step):
    assert losses(run_step("llama", step | {"parts": 2})) == pytest.approx(
        losses(run_step("llama", step)), rel=1e-3
    )


@each_technique
def test_training_without_gain_ends_early(step, run_step, monkeypatch):
    values = iter([0.5, 0.6])
    monkeypatch.setattr(
        "engine.training.trainer.held_out_quality",
        lambda *_: Quality("accuracy", next(values, 0.1)),
    )
    outcome = run_step("resnet", step | {"steps": 40, "look_every": 4, "patience": 2})
    assert len(losses(outcome)) == 12
    assert any(
        "Training ended at step 12 of 40: nothing was gained since step 4" in note
        for note in outcome.summary.notes
    )


@each_technique
def test_products_may_be_bfloat16(step, run_step, monkeypatch):
    monkeypatch.setattr(
        "engine.techniques.training.training_setup.multiplies_bfloat16", lambda device: True
    )
    # answers of the original that is still near are nearly equal, and differences of little are
    # rough
    step = step | {"distill_weight": 0.0}
    plain, half = (
        losses(run_step("bert", step)),
        losses(run_step("bert", step | {"products": "bfloat16"})),
    )
    assert plain != half and plain == pytest.approx(half, rel=0.1)


@each_technique
def test_epochs_are_counted_and_forecast(step, folders, tmp_path):
    recipe = recipe_for("bert", folders["bert"], tmp_path / "data", step)
    outcome = run(recipe.model_copy(update={"training": Training(epochs=2, samples=16)}))
    once = run(recipe.model_copy(update={"training": Training(epochs=1, samples=16)}))
    assert len(losses(outcome)) == 2 * len(losses(once)) > 3
    long, short = (
        forecast(
            recipe.model_dump(mode="json") | {"training": {"epochs": many, "samples": 16}}
        ).seconds
        for many in (500, 1)
    )
    assert long > short


@each_technique
def test_a_recipe_of_an_earlier_version_keeps_its_training(step):
    (config,) = Recipe.from_dict({"steps": [step]}).steps
    assert (config.parts, config.patience, config.products) == (1, 0, "float32")
