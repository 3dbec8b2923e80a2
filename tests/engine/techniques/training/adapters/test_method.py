"""Adapters: merged or apart they say the same, bases stay as they were stored, and both are
counted.
"""

from dataclasses import replace

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.errors import PlainError
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.pipeline.run import run
from engine.recipe import Recipe
from engine.techniques.implementations import plan
from engine.techniques.training import finetuner as learner_module
from engine.techniques.training.adapters.config import LoRA, QLoRA
from engine.techniques.training.adapters.method import lora_factors, lora_layer
from engine.tensors.low_rank import AdaptedWeight
from engine.training.loop import make_optimizer
from tests.answers import forecast, what_if
from tests.cases import covering, for_each, in_turn
from tests.recipes import recipe_for

CPU = torch.device("cpu")
ARCHITECTURES = ("llama", "llama-tied", "gpt2", "bert", "resnet")
SHORT = {"technique": "lora", "rank": 2, "steps": 3, "batch": 4, "rate": 1e-2, "look_every": 1}
MERGED = SHORT | {"merge": True}
BASES = {
    "rounded": {"technique": "round-to-nearest", "bits": 2},
    "nf4": {"technique": "bitsandbytes", "double_quantization": True},
    "int8": {"technique": "bitsandbytes", "format": "int8"},
    "pruned": {"technique": "magnitude", "sparsity": 0.6},
    "factorized": {"technique": "svd", "whitening": "none", "kept": 0.5, "scope": "layer"},
    "w8a8": {"technique": "activations", "mode": "dynamic"},
    "ternary": {"technique": "ternary"},
}
each_architecture = for_each("architecture", ARCHITECTURES)


@pytest.fixture
def run_step(folders, tmp_path):
    def run_recipe(architecture, *steps, save=None, **fields):
        return run(
            recipe_for(architecture, folders[architecture], tmp_path / "data", *steps, **fields),
            save=save,
            report=lambda *_: None,
        )

    return run_recipe


@pytest.fixture
def trained_logits(monkeypatch):
    """Final outputs of the model in training, with all adapters."""
    heard, learn = [], learner_module.Finetuner.train

    def listening(self):
        learn(self)
        heard.clear()  # of an earlier case
        with torch.inference_mode():
            heard.append(self.trainable.model.eval()(**inputs_of(self.trainable.model)).logits)
        heard.append(
            {
                name: module
                for name, module in self.trainable.model.named_modules()
                if isinstance(module, LoraLayer)
            }
        )

    monkeypatch.setattr(learner_module.Finetuner, "train", listening)
    return heard


def inputs_of(model) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    if model.config.model_type == "resnet":
        return {"pixel_values": torch.randn(2, 1, 16, 16, generator=draw)}
    return {"input_ids": torch.arange(4, 36)[None]}


def open_saved(folder):
    return load_model(resolve_model(str(folder)), CPU, torch.float32)


def logits_of(folder) -> torch.Tensor:
    model = open_saved(folder).model
    with torch.inference_mode():
        return model(**inputs_of(model)).logits


# --- merged, apart, and in training ---------------------------------------------------------------


@each_architecture
def test_merged_apart_and_in_training_the_answers_are_the_same(
    architecture, run_step, kept_last, trained_logits, tmp_path
):
    """On an unquantized base; the model in training holds peft's own layers."""
    run_step(architecture, SHORT, save=tmp_path / "apart")
    run_step(architecture, MERGED, save=tmp_path / "merged")
    apart, with_peft, merged = (
        logits_of(tmp_path / "apart"),
        trained_logits[0],
        logits_of(tmp_path / "merged"),
    )
    assert trained_logits[1]
    torch.testing.assert_close(apart, with_peft, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged, with_peft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
def test_pefts_own_merge_is_what_is_merged_here(kind):
    torch.manual_seed(0)
    module = {
        "linear": nn.Linear(9, 6),
        "conv1d": Conv1D(6, 9),
        "conv2d": nn.Conv2d(9, 6, 3, 2, 2, 2),
    }[kind]
    inputs = torch.randn(2, 9, 12, 12) if kind == "conv2d" else torch.randn(5, 9)
    lora = lora_layer(module, LoRA(rank=3, alpha=5))
    lora.lora_B["adapter"].weight.data.normal_()
    beside = lora(inputs)
    up, down = lora_factors(lora)
    whole = up @ down
    delta = lora.get_delta_weight("adapter")
    torch.testing.assert_close(whole.T if kind == "conv1d" else whole.view_as(delta), delta)
    lora.merge()
    torch.testing.assert_close(lora(inputs), beside, rtol=1e-4, atol=1e-5)


@for_each(("architecture", "base"), covering(["llama", "gpt2", "bert", "resnet"], BASES))
def test_a_base_stays_as_it_was_stored_and_the_file_answers_as_the_model_in_training(
    base, architecture, run_step, kept_last, trained_logits, tmp_path
):
    first = BASES[base]
    run_step(architecture, first, save=tmp_path / "base")
    outcome = run_step(architecture, first, SHORT, save=tmp_path / "adapted")
    before, after = open_saved(tmp_path / "base").model, open_saved(tmp_path / "adapted").model
    with_adapters = [
        name
        for name, module in after.named_modules()
        if isinstance(getattr(module, "stored", None), AdaptedWeight)
    ]
    assert with_adapters
    for name in with_adapters:
        held, base_now = before.get_submodule(name).stored, after.get_submodule(name).stored.base
        assert type(held) is type(base_now) and all(
            torch.equal(value, base_now.tensors()[part]) for part, value in held.tensors().items()
        )
        inputs = torch.randn(4, *after.get_submodule(name).kernel[1:])
        torch.testing.assert_close(
            after.get_submodule(name)(inputs), trained_logits[1][name](inputs), rtol=1e-4, atol=1e-5
        )
    if base != "w8a8":  # where a sum in another order may round to the next code
        torch.testing.assert_close(
            logits_of(tmp_path / "adapted"), trained_logits[0], rtol=1e-4, atol=1e-4
        )
    written = sum(file.stat().st_size for file in (tmp_path / "adapted").glob("*.safetensors"))
    assert written == outcome.summary.result.size_bytes == outcome.tables.ledger.size_bytes.sum()


def test_the_ledger_separates_base_and_adapters(run_step):
    alone, both = (
        run_step("llama", BASES["nf4"], *more).tables.ledger.groupby("part").size_bytes.sum()
        for more in ((), (SHORT,))
    )
    layers = [(48, 48), (24, 48), (24, 48), (48, 48), (172, 48), (172, 48), (48, 172)] * 2
    assert both["adapters"] == sum(4 * 2 * (out + in_) for out, in_ in layers)
    assert both["codes"] == alone["codes"] and both["absmax"] == alone["absmax"]


# --- zeros ----------------------------------------------------------------------------------------


@for_each("architecture", ["llama", "gpt2", "bert", "resnet"])
def test_a_merge_that_keeps_zeros_was_trained_with_them(
    architecture, run_step, kept_last, trained_logits, tmp_path
):
    outcome = run_step(architecture, BASES["pruned"], MERGED, save=tmp_path / "merged")
    treated = outcome.tables.layers[outcome.tables.layers.technique == "lora"]
    # no layer of peft's: its factors hang on the weight
    assert (treated.sparsity >= 0.59).all() and not trained_logits[1]
    torch.testing.assert_close(
        logits_of(tmp_path / "merged"), trained_logits[0], rtol=1e-4, atol=1e-5
    )
    assert (
        outcome.summary.result.size_bytes
        == run_step(architecture, BASES["pruned"]).summary.result.size_bytes
    )


def test_a_merge_fills_zeros_if_requested(run_step, kept_last):
    treated = run_step("bert", BASES["pruned"], MERGED | {"keep_zeros": False}).tables.layers
    assert (treated[treated.technique == "lora"].sparsity < 0.01).all()


def test_merged_weights_may_be_quantized_and_zeros_stay(run_step, kept_last):
    outcome = run_step("bert", BASES["pruned"], MERGED, {"technique": "round-to-nearest"})
    treated = outcome.tables.layers[outcome.tables.layers.technique != ""]
    assert (treated.sparsity >= 0.59).all() and outcome.summary.result.bits_per_weight < 5


# --- which layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "attention"), [("llama", 8), ("gpt2", 4), ("bert", 8)])
def test_adapters_are_added_to_the_selected_layers(
    architecture, attention, folders, tmp_path, run_step, kept_last
):
    where = {}
    for place in ("all", "attention", "feed-forward"):
        run_step(architecture, SHORT | {"where": place}, save=tmp_path / place)
        at = open_saved(tmp_path / place)
        where[place] = {
            layer.name
            for layer in at.layers
            if isinstance(at.model.get_submodule(layer.name).stored, AdaptedWeight)
        }
    assert len(where["attention"]) == attention and not where["attention"] & where["feed-forward"]
    inside = {name for name in where["all"] if ".0." in name or ".1." in name}
    assert where["attention"] | where["feed-forward"] == inside


def test_layers_without_adapters_stay_as_they_are_stored(run_step, kept_last, tmp_path):
    qlora = SHORT | {"technique": "qlora", "where": "attention"}
    run_step("llama", qlora, save=tmp_path / "saved")
    stored = {
        layer.name: open_saved(tmp_path / "saved").model.get_submodule(layer.name).stored.kind
        for layer in open_saved(tmp_path / "saved").layers
    }
    assert (
        stored["model.layers.0.mlp.up_proj"] == "four-bit"
        and stored["model.layers.0.self_attn.q_proj"] == "adapted"
    )


def test_narrow_layers_get_as_many_directions_as_they_have(folders):
    at = load_model(resolve_model(str(folders["bert"])), CPU, torch.float32)
    layers = [layer for layer in at.layers if layer.kind == "linear"]
    settings = plan(LoRA(rank=16, alpha=32), layers)
    assert (
        settings["classifier"].rank == 3
        and settings["classifier"].alpha == 6
        and settings["bert.pooler.dense"].rank == 16
    )


# --- how it learns --------------------------------------------------------------------------------


def test_only_adapters_are_trained(run_step, kept_last, tmp_path):
    run_step("bert", SHORT, save=tmp_path / "saved")
    before, after = (
        open_saved(tmp_path / "saved").plain,
        run_step("bert", SHORT | {"rate": 0}, save=tmp_path / "still")
        and open_saved(tmp_path / "still").plain,
    )
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_training_at_rate_zero_changes_nothing(run_step):
    for base in ("rounded", "pruned"):
        alone, with_adapters = (
            run_step("bert", BASES[base]),
            run_step("bert", BASES[base], SHORT | {"rate": 0}),
        )
        assert with_adapters.summary.result.loss == alone.summary.result.loss


def test_qlora_is_nf4_and_lora_in_one_step(run_step):
    one = run_step("bert", SHORT | {"technique": "qlora"})
    two = run_step("bert", {"technique": "bitsandbytes", "double_quantization": True}, SHORT)
    assert (
        one.summary.result.loss == two.summary.result.loss
        and one.summary.result.size_bytes == two.summary.result.size_bytes
    )
    assert QLoRA().double_quantization and (one.tables.curves.phase == "adapter").all()


def test_runs_repeat_to_the_bit(run_step):
    first, second = (
        run_step("resnet", BASES["rounded"], SHORT | {"dropout": 0.5}) for _ in range(2)
    )
    one, other = (
        curves[curves.name != "examples per second"]
        for curves in (first.tables.curves, second.tables.curves)
    )
    assert one.equals(other) and first.summary.result.loss == second.summary.result.loss


def test_adapters_recover_quality_lost_by_rounding(run_step):
    """Taught by the original on the text that is measured, the last look is better than the
    first.
    """
    curves = run_step(
        "llama",
        BASES["rounded"],
        SHORT | {"steps": 60, "rank": 8, "distill_weight": 1.0, "look_every": 20},
    ).tables.curves
    loss = curves[curves.name == "loss"].value
    assert loss.tail(5).mean() < 0.9 * loss.head(5).mean()


# --- forecasts, looks, refusals -------------------------------------------------------------------


STEPS = {
    "apart": [SHORT],
    "merged": [MERGED],
    "qlora": [SHORT | {"technique": "qlora", "adapters": "bfloat16"}],
    "rounded": [BASES["rounded"], SHORT],
    "pruned": [BASES["pruned"], SHORT],
    "pruned-merged": [BASES["pruned"], MERGED],
    "pruned-qlora": [BASES["pruned"], SHORT | {"technique": "qlora"}],
    "pruned-rounded": [BASES["pruned"], BASES["nf4"], SHORT],
    "factorized": [BASES["factorized"], SHORT | {"where": "all"}],
    "w8a8": [BASES["w8a8"], SHORT],
}


@pytest.mark.usefixtures("bytes_alone")
@for_each(("architecture", "steps"), in_turn(["gpt2", "resnet"], STEPS))
def test_the_forecast_is_what_is_written(architecture, steps, folders, tmp_path):
    recipe = recipe_for(architecture, folders[architecture], tmp_path / "data", *STEPS[steps])
    assert forecast(recipe).size_bytes == run(recipe).summary.result.size_bytes


def test_a_look_is_where_training_begins(folders):
    layer, model = "bert.encoder.layer.0.intermediate.dense", str(folders["bert"])
    nothing = what_if(model, layer, {"technique": "lora"})
    assert nothing.row.relative_error == 0 and nothing.row.size_bytes > 4 * 172 * 48
    nf4 = what_if(model, layer, {"technique": "bitsandbytes", "double_quantization": True})
    both = (
        what_if(model, layer, {"technique": "qlora"}),
        what_if(model, layer, {"technique": "lora"}, earlier=[{"technique": "bitsandbytes"}]),
    )
    assert both[0].row.relative_error == nf4.row.relative_error and both[
        1
    ].row.relative_error == pytest.approx(nf4.row.relative_error, rel=0.05)


@pytest.mark.parametrize(
    ("architecture", "step", "words"),
    [
        ("bert", {"rank": 49}, "Rank 49 is above the full rank of every layer, 48 at most"),
        ("resnet", {"where": "attention"}, "No layer of this model is named as attention"),
    ],
)
def test_unsupported_adapters_give_a_message(architecture, step, words, run_step):
    with pytest.raises(PlainError, match=words):
        run_step(architecture, SHORT | step)


@for_each(
    ("step", "words"),
    [
        ({"technique": "lora", "rank": 0}, "from 1 to 65536"),
        ({"technique": "lora", "alpha": 0}, "from 0.01 to 65536"),
        ({"technique": "lora", "dropout": 1}, "from 0 to 0.9"),
        (
            {"technique": "lora", "merge": True, "dropout": 0.1},
            "set dropout to 0, or keep_zeros to false",
        ),
        ({"technique": "qlora", "merge": True}, "there is no option 'merge'"),
        ({"technique": "qlora", "format": "nf3"}, "nf4, fp4 or int8"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(step, words):
    with pytest.raises(PlainError, match=words) as refused:
        Recipe.from_dict({"steps": [step]})
    assert "\n" not in str(refused.value)


PAGED = SHORT | {"technique": "qlora", "optimizer": "paged-8bit"}


def test_adapters_that_ask_for_it_learn_with_it(run_step, monkeypatch):
    """Up to where a GPU would be needed."""
    asked = []
    monkeypatch.setattr(
        "engine.techniques.training.finetuner.check_paged_optimizer", lambda *_: None
    )

    def unpaged_optimizer(model, config):
        asked.append(config)
        return make_optimizer(model, replace(config, paged=False))

    monkeypatch.setattr("engine.training.trainer.make_optimizer", unpaged_optimizer)
    for step in (PAGED, SHORT | {"technique": "qlora"}):
        run_step("bert", step)
    assert [config.paged for config in asked] == [True, False]
