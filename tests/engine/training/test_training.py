"""The training loop: what is asked for is what moves, draws repeat, and nothing is learned from
what quality is measured on.
"""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, softmax

from engine.errors import PlainError
from engine.evaluation.data.examples import load_examples
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.recipe.tasks import (
    Calibration,
    ImageClassification,
    LanguageModeling,
    TextClassification,
)
from engine.training import (
    EncodedExamples,
    Quality,
    TrainingConfig,
    held_out_quality,
    load_training_data,
    make_trainable,
    train_steps,
)
from engine.training.accelerated import Float16Accelerator, accelerator_for
from engine.training.loop import batch_indices, make_optimizer
from engine.training.losses import aligned_targets, l1_norm, label_loss, teacher_loss
from engine.training.masks import INITIAL_OPENNESS, HardConcreteGates
from tests.cases import for_each
from tests.recipes import recipe_for, task_for
from tests.tiny import LANGUAGE_MODELS, tiny

CPU = torch.device("cpu")
TRAINING = TrainingConfig(steps=3, rate=1e-2, batch=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name))
        for name in ("llama", "llama-tied", "gpt2", "bert", "resnet")
    }


@pytest.fixture
def make_model(folders):
    def of(architecture, prepared=True, **cuts):
        folder = resolve_model(str(folders[architecture]))
        at = load_model(folder, CPU, torch.float32)
        recipe = recipe_for("resnet", folders["resnet"], folders["resnet"])
        trainable = make_trainable(folder, at, selected_layers(at.layers, recipe.layers), CPU)
        if prepared:
            trainable.attach_masks(**cuts)
        return trainable

    return of


def exercises(architecture: str, count: int = 12) -> EncodedExamples:
    draw = torch.Generator().manual_seed(3)
    if architecture == "resnet":
        return EncodedExamples(
            {"pixel_values": torch.randn(count, 1, 16, 16, generator=draw)},
            torch.arange(count) % 10,
        )
    tokens = torch.randint(5, 250, (count, 9), generator=draw)
    if architecture in LANGUAGE_MODELS:
        return EncodedExamples({"input_ids": tokens}, tokens)
    return EncodedExamples(
        {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, torch.arange(count) % 3
    )


def labels(logits, batch):
    return label_loss(logits, batch.targets)


def training_losses(trainable, architecture, training_config=TRAINING, loss=labels) -> list[float]:
    return [
        step_loss
        for _, step_loss in train_steps(
            trainable.model, exercises(architecture), training_config, loss
        )
    ]


# --- the loop -------------------------------------------------------------------------------------


def test_the_rate_rises_then_falls_to_nothing():
    training_config = TrainingConfig(steps=100, rate=0.1, batch=4)
    rates = [training_config.rate_at(step) for step in range(101)]
    assert (
        rates[0] < rates[2] < rates[4] == max(rates)
        and rates[5:] == sorted(rates[5:], reverse=True)
        and rates[100] == pytest.approx(0)
    )


@for_each("architecture", ["llama", "llama-tied", "gpt2", "bert", "resnet"])
def test_layers_norms_and_biases_learn_and_everything_else_stays(architecture, make_model):
    trainable = make_model(architecture)
    before = {name: value.clone() for name, value in trainable.model.state_dict().items()}
    training_losses(trainable, architecture)
    moved = {
        name
        for name, value in trainable.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    learning = {f"{layer.name}.parametrizations.weight.original" for layer in trainable.layers}
    assert (
        learning <= moved
        and moved - learning <= trainable.original.plain.keys()
        and moved - learning
    )


@pytest.mark.parametrize("architecture", ["llama", "resnet"])
def test_a_rate_of_zero_moves_nothing_not_even_statistics(architecture, make_model):
    trainable = make_model(architecture)
    before = trainable.state()
    training_losses(trainable, architecture, TrainingConfig(3, 0.0, 4))
    assert all(torch.equal(value, before[name]) for name, value in trainable.state().items())


def test_batch_norms_count_anew_what_they_see(make_model):
    trainable = make_model("resnet")
    training_losses(trainable, "resnet")
    norms = {name: value for name, value in trainable.plain().items() if "running_mean" in name}
    assert norms and all(
        not torch.equal(value, trainable.original.plain[name]) for name, value in norms.items()
    )


def test_the_original_and_its_files_are_left_alone(make_model, folders):
    trainable = make_model("gpt2")
    before = (folders["gpt2"] / "model.safetensors").read_bytes()
    weights = {
        layer.name: trainable.original.model.get_submodule(layer.name).stored.to_dense().clone()
        for layer in trainable.layers
    }
    training_losses(trainable, "gpt2")
    assert (folders["gpt2"] / "model.safetensors").read_bytes() == before
    assert all(
        torch.equal(trainable.original.model.get_submodule(name).stored.to_dense(), weight)
        for name, weight in weights.items()
    )
    assert all(not torch.equal(trainable.weight(name), weight) for name, weight in weights.items())


def test_seeds_repeat_to_the_bit_and_differ_from_one_another(make_model):
    losses = [
        training_losses(make_model("bert", gated=True), "bert", TrainingConfig(3, 1e-2, 4, seed))
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_it_learns(make_model):
    trainable, training_config = make_model("resnet"), TrainingConfig(steps=30, rate=1e-2, batch=12)
    before = held_out_quality(trainable.model, exercises("resnet")).value
    losses = training_losses(trainable, "resnet", training_config)
    assert (
        losses[-1] < losses[0] / 2
        and held_out_quality(trainable.model, exercises("resnet")).value > before
    )


def test_trainings_in_other_number_formats_follow_one_another_in_a_process(make_model):
    """accelerate's state is one for a process and takes a single format; each training here has its
    own.
    """
    trainable, seen = make_model("bert", prepared=False), []

    def recording_loss(logits, batch):
        seen.append(logits.dtype)
        return labels(logits, batch)

    for half in (False, True, False):
        training_losses(trainable, "bert", TrainingConfig(1, 1e-3, 4, half=half), recording_loss)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


def by_torch_alone(
    model: torch.nn.Module,
    training_config: TrainingConfig,
    cast: torch.dtype | None,
    scaler: torch.amp.GradScaler,
) -> None:
    """AdamW under a rise and a cosine with clipped gradients, written out."""
    optimizer = make_optimizer(model, training_config)
    for step, rows in zip(
        range(training_config.steps), batch_indices(12, training_config), strict=False
    ):
        batch = exercises("bert").subset(rows)
        for group in optimizer.param_groups:
            group["lr"] = training_config.rate_at(step)
        model.train()
        torch.manual_seed(training_config.seed_at(step))
        optimizer.zero_grad()
        with torch.autocast("cpu", cast, enabled=cast is not None):
            loss = cross_entropy(model(**batch.inputs).logits, batch.targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), training_config.clip)
        scaler.step(optimizer)
        scaler.update()


@for_each(
    ("cast", "hand"),
    [
        (None, lambda: accelerator_for(CPU)),
        (torch.bfloat16, lambda: accelerator_for(CPU, half=True)),
        (torch.float16, lambda: Float16Accelerator(CPU, 1024.0, loss_scaling=False)),
        (torch.float16, lambda: Float16Accelerator(CPU, 1024.0, loss_scaling=True)),
    ],
)
def test_its_steps_are_those_of_torch_alone(cast, hand, make_model):
    trainable, plain_trainable, accelerator = (
        make_model("bert", prepared=False),
        make_model("bert", prepared=False),
        hand(),
    )
    for _ in train_steps(
        trainable.model, exercises("bert"), TRAINING, labels, accelerator=accelerator
    ):
        pass
    scaler = torch.amp.GradScaler(
        "cpu", 1024.0, enabled=accelerator.scaler is not None and accelerator.scaler.is_enabled()
    )
    by_torch_alone(plain_trainable.model, TRAINING, cast, scaler)
    torch.testing.assert_close(
        dict(trainable.model.state_dict()), dict(plain_trainable.model.state_dict())
    )


def test_every_example_comes_once_before_any_comes_again(make_model):
    seen = []

    def recording_loss(logits, batch):
        seen.extend(batch.inputs["pixel_values"][:, 0, 0, 0].tolist())
        return labels(logits, batch)

    training_losses(make_model("resnet"), "resnet", TrainingConfig(3, 0.0, 4), recording_loss)
    assert len(set(seen)) == 12


def test_a_loss_that_is_no_number_is_said_in_a_sentence(make_model):
    with pytest.raises(
        PlainError, match=r"NaN or infinite at training step 1; lower rate, which is 0\.01"
    ):
        training_losses(
            make_model("resnet"),
            "resnet",
            loss=lambda logits, batch: labels(logits, batch) * math.nan,
        )


# --- losses ---------------------------------------------------------------------------------------


def test_a_text_is_judged_by_the_next_token():
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    assert label_loss(logits, tokens) == pytest.approx(
        cross_entropy(logits[:, :-1].reshape(-1, 7), tokens[:, 1:].reshape(-1)).item()
    )
    assert aligned_targets(logits, tokens)[1].tolist() == tokens[:, 1:].flatten().tolist()


def test_a_teacher_who_says_the_same_costs_nothing_and_at_one_degree_it_is_kl():
    result, reference = torch.randn(4, 6), torch.randn(4, 6)
    p = softmax(reference, -1)
    assert teacher_loss(result, result, 3.0).item() == pytest.approx(0, abs=1e-6)
    assert teacher_loss(result, reference, 1.0).item() == pytest.approx(
        (p * (p.log() - result.log_softmax(-1))).sum(-1).mean().item(), rel=1e-5
    )


def test_a_penalty_on_size_shrinks_weights(make_model):
    def norm_at(price: float) -> float:
        trainable = make_model("resnet")
        modules = [trainable.model.get_submodule(layer.name) for layer in trainable.layers]
        training_losses(
            trainable,
            "resnet",
            TrainingConfig(10, 1e-3, 4),
            lambda logits, batch: (
                labels(logits, batch) + price * l1_norm(m.weight for m in modules)
            ),
        )
        return sum(trainable.weight(layer.name).abs().sum().item() for layer in trainable.layers)

    assert norm_at(1e-2) < norm_at(0.0)


# --- cuts and gates -------------------------------------------------------------------------------


@for_each("architecture", ["gpt2", "resnet"])
@for_each("regrow", [False, True])
def test_what_is_cut_stays_zero_forward_and_learns_unseen_only_where_it_may_come_back(
    architecture, regrow, make_model
):
    trainable = make_model(architecture, regrow=regrow)
    masks = {
        layer.name: torch.rand(layer.matrix_shape, generator=torch.Generator().manual_seed(1)) > 0.5
        for layer in trainable.layers
    }
    for name, mask in masks.items():
        trainable.set_mask(name, mask)
    before = {name: trainable.unmasked_weight(name).clone() for name in masks}
    training_losses(trainable, architecture, TrainingConfig(3, 1e-2, 4, weight_decay=0.0))
    assert all(not trainable.weight(name)[~mask].any() for name, mask in masks.items())
    moved = sum(
        int((trainable.unmasked_weight(name) != before[name])[~mask].sum())
        for name, mask in masks.items()
    )
    assert (moved > 0) == regrow


def test_gates_begin_open_and_close_where_they_are_paid_for():
    gates, weight = HardConcreteGates(torch.ones(40, 40)).eval(), torch.ones(40, 40)
    assert torch.equal(gates(weight), weight) and gates.expected_open().item() > 0.97 * 1600
    gates.train()
    assert (gates(weight) < 1).any() and gates(weight).min() >= 0
    gates.eval().openness.data.fill_(-INITIAL_OPENNESS)
    assert not gates(weight).any() and gates.expected_open().item() < 0.3 * 1600


# --- lessons --------------------------------------------------------------------------------------


def test_nothing_is_learnt_from_what_quality_is_measured_on(folders, tmp_path):
    task = TextClassification(**task_for("bert", tmp_path))
    training_data, tokens = (
        load_training_data(task, None, resolve_model(str(folders["bert"]))),
        set(),
    )
    for part in (training_data.train, training_data.held_out):
        tokens |= {tuple(row.tolist()) for row in part.inputs["input_ids"]}
    assert (
        len(training_data.train) + len(training_data.held_out) == 24 - 16
        and len(load_examples(task).inputs) == 16
    )


def test_pictures_come_from_the_splits_for_it(folders):
    training_data = load_training_data(
        ImageClassification(), None, resolve_model(str(folders["resnet"]))
    )
    assert (
        len(training_data.train) > 1000
        and 150 < len(training_data.held_out) < 256
        and training_data.train.inputs["pixel_values"].shape[1:] == (1, 16, 16)
    )


def test_texts_are_padded_behind_and_cut_to_the_longest_of_a_batch(folders, tmp_path):
    train = load_training_data(
        TextClassification(**task_for("bert", tmp_path)), None, resolve_model(str(folders["bert"]))
    ).train
    lengths = train.inputs["attention_mask"].sum(1)
    shortest = train.subset(lengths.argmin()[None])
    assert (
        shortest.inputs["input_ids"].shape[1] == lengths.min()
        and shortest.inputs["attention_mask"].all()
    )


def test_a_text_is_cut_into_windows_of_which_the_last_are_held_out(folders, tmp_path):
    task = LanguageModeling(**task_for("llama", tmp_path))
    training_data = load_training_data(
        task, Calibration(text=task.text, context=16), resolve_model(str(folders["llama"]))
    )
    assert (
        training_data.train.targets.shape[1] == 16
        and len(training_data.held_out) == 32
        and torch.equal(training_data.train.inputs["input_ids"], training_data.train.targets)
    )


@pytest.mark.parametrize(
    ("samples", "words"), [(24, "has no labeled examples"), (23, "has 1 labeled examples")]
)
def test_data_without_more_examples_is_refused(samples, words, folders, tmp_path):
    with pytest.raises(PlainError, match=words + " to train on besides those"):
        load_training_data(
            TextClassification(**task_for("bert", tmp_path) | {"samples": samples}),
            None,
            resolve_model(str(folders["bert"])),
        )


def test_a_text_of_one_window_is_refused(folders, tmp_path):
    task = LanguageModeling(**task_for("llama", tmp_path))
    (tmp_path / "short.txt").write_text("a b c d e f g h i j")
    with pytest.raises(PlainError, match="one window of 16 tokens"):
        load_training_data(
            task,
            Calibration(text=str(tmp_path / "short.txt"), context=16),
            resolve_model(str(folders["llama"])),
        )


def test_perplexities_are_shares_the_other_way_round():
    assert Quality("accuracy", 0.45).relative_to(Quality("accuracy", 0.9)) == 0.5
    assert Quality("perplexity", 20.0).relative_to(Quality("perplexity", 10.0)) == 0.5
    assert Quality("accuracy", 0.0).relative_to(Quality("accuracy", 0.0)) == 0.0
