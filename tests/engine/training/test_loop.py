import math

import pytest
import torch
from bitsandbytes.optim import PagedAdamW8bit
from torch import nn
from torch.nn.functional import (
    cross_entropy,
)

from engine.errors import PlainError
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.training import (
    TrainingConfig,
    held_out_quality,
    loop,
    make_trainable,
    train_steps,
)
from engine.training.accelerated import Float16Accelerator, accelerator_for
from engine.training.loop import (
    batch_indices,
    forward_backward,
    make_optimizer,
)
from engine.training.losses import (
    l1_norm,
    label_loss,
)
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.training_examples import exercises

CPU = torch.device("cpu")
CONFIG = TrainingConfig(steps=3, rate=1e-2, batch=4)


@pytest.fixture
def make_model(folders):
    def of(architecture, prepared=True, **cuts):
        folder = resolve_model(str(folders[architecture]))
        at = load_model(folder, CPU, torch.float32)
        recipe = recipe_for("resnet", folders["resnet"], folders["resnet"])
        trained = make_trainable(folder, at, selected_layers(at.layers, recipe.layers), CPU)
        if prepared:
            trained.attach_masks(**cuts)
        return trained

    return of


def labels(logits, batch):
    return label_loss(logits, batch.targets)


def training_losses(trainable, architecture, config=CONFIG, loss=labels) -> list[float]:
    steps = train_steps(trainable.model, exercises(architecture), config, loss)
    return [each for _, each in steps]


@for_each("architecture", ["llama", "llama-tied", "gpt2", "bert", "resnet"])
def test_layers_norms_and_biases_are_trained_and_nothing_else(architecture, make_model):
    trained = make_model(architecture)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    training_losses(trained, architecture)
    moved = {
        name
        for name, value in trained.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    learning = {f"{layer.name}.parametrizations.weight.original" for layer in trained.layers}
    assert (
        learning <= moved and moved - learning <= trained.original.plain.keys() and moved - learning
    )


@pytest.mark.parametrize("architecture", ["llama", "resnet"])
def test_a_learning_rate_of_zero_changes_nothing(architecture, make_model):
    trained = make_model(architecture)
    before = trained.state()
    training_losses(trained, architecture, TrainingConfig(3, 0.0, 4))
    assert all(torch.equal(value, before[name]) for name, value in trained.state().items())


def test_batch_norms_update_their_statistics(make_model):
    trained = make_model("resnet")
    training_losses(trained, "resnet")
    norms = {name: value for name, value in trained.plain().items() if "running_mean" in name}
    assert norms and all(
        not torch.equal(value, trained.original.plain[name]) for name, value in norms.items()
    )


def test_training_does_not_change_the_original_or_its_files(make_model, folders):
    trained = make_model("gpt2")
    before = (folders["gpt2"] / "model.safetensors").read_bytes()
    held = {
        layer.name: trained.original.model.get_submodule(layer.name).stored.to_dense().clone()
        for layer in trained.layers
    }
    training_losses(trained, "gpt2")
    assert (folders["gpt2"] / "model.safetensors").read_bytes() == before
    assert all(
        torch.equal(trained.original.model.get_submodule(name).stored.to_dense(), weight)
        for name, weight in held.items()
    )
    assert all(not torch.equal(trained.weight(name), weight) for name, weight in held.items())


def test_seeds_repeat_to_the_bit_and_differ_from_one_another(make_model):
    losses = [
        training_losses(make_model("bert", gated=True), "bert", TrainingConfig(3, 1e-2, 4, seed))
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_it_learns(make_model):
    trained, config = make_model("resnet"), TrainingConfig(steps=30, rate=1e-2, batch=12)
    before = held_out_quality(trained.model, exercises("resnet")).value
    losses = training_losses(trained, "resnet", config)
    assert (
        losses[-1] < losses[0] / 2
        and held_out_quality(trained.model, exercises("resnet")).value > before
    )


def test_trainings_in_other_number_formats_follow_one_another_in_a_process(make_model):
    """accelerate's state is one for a process and takes a single format; each training here has its
    own.
    """
    trained, seen = make_model("bert", prepared=False), []

    def recording_loss(logits, batch):
        seen.append(logits.dtype)
        return labels(logits, batch)

    for half in (False, True, False):
        training_losses(trained, "bert", TrainingConfig(1, 1e-3, 4, half=half), recording_loss)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


def by_torch_alone(
    model: torch.nn.Module,
    config: TrainingConfig,
    cast: torch.dtype | None,
    scaler: torch.amp.GradScaler,
) -> None:
    """AdamW under a rise and a cosine with clipped gradients, written out."""
    optimizer = make_optimizer(model, config)
    for step, rows in zip(range(config.steps), batch_indices(12, config), strict=False):
        batch = exercises("bert").subset(rows)
        for group in optimizer.param_groups:
            group["lr"] = config.rate_at(step)
        model.train()
        torch.manual_seed(config.seed_at(step))
        optimizer.zero_grad()
        with torch.autocast("cpu", cast, enabled=cast is not None):
            loss = cross_entropy(model(**batch.inputs).logits, batch.targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
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
def test_steps_equal_those_of_a_plain_torch_loop(cast, hand, make_model):
    trained, bare, accelerator = (
        make_model("bert", prepared=False),
        make_model("bert", prepared=False),
        hand(),
    )
    for _ in train_steps(trained.model, exercises("bert"), CONFIG, labels, accelerator=accelerator):
        pass
    scaler = torch.amp.GradScaler(
        "cpu", 1024.0, enabled=accelerator.scaler is not None and accelerator.scaler.is_enabled()
    )
    by_torch_alone(bare.model, CONFIG, cast, scaler)
    torch.testing.assert_close(dict(trained.model.state_dict()), dict(bare.model.state_dict()))


def test_every_example_is_used_once_per_epoch(make_model):
    seen = []

    def recording_loss(logits, batch):
        seen.extend(batch.inputs["pixel_values"][:, 0, 0, 0].tolist())
        return labels(logits, batch)

    training_losses(make_model("resnet"), "resnet", TrainingConfig(3, 0.0, 4), recording_loss)
    assert len(set(seen)) == 12


def test_a_nan_loss_gives_a_message(make_model):
    with pytest.raises(
        PlainError,
        match=r"NaN or infinite at training step 1; lower Learning rate \(rate\), which is 0\.01",
    ):
        training_losses(
            make_model("resnet"),
            "resnet",
            loss=lambda logits, batch: labels(logits, batch) * math.nan,
        )


def test_a_penalty_on_size_shrinks_weights(make_model):
    def norm_at(price: float) -> float:
        trained = make_model("resnet")
        modules = [trained.model.get_submodule(layer.name) for layer in trained.layers]
        training_losses(
            trained,
            "resnet",
            TrainingConfig(10, 1e-3, 4),
            lambda logits, batch: (
                labels(logits, batch) + price * l1_norm(m.weight for m in modules)
            ),
        )
        return sum(trained.weight(layer.name).abs().sum().item() for layer in trained.layers)

    assert norm_at(1e-2) < norm_at(0.0)


@for_each("architecture", ["gpt2", "resnet"])
@for_each("regrow", [False, True])
def test_what_is_cut_stays_zero_forward_and_learns_unseen_only_where_it_may_come_back(
    architecture, regrow, make_model
):
    trained = make_model(architecture, regrow=regrow)
    masks = {
        layer.name: torch.rand(layer.matrix_shape, generator=torch.Generator().manual_seed(1)) > 0.5
        for layer in trained.layers
    }
    for name, mask in masks.items():
        trained.set_mask(name, mask)
    before = {name: trained.unmasked_weight(name).clone() for name in masks}
    training_losses(trained, architecture, TrainingConfig(3, 1e-2, 4, weight_decay=0.0))
    assert all(not trained.weight(name)[~mask].any() for name, mask in masks.items())
    moved = sum(
        int((trained.unmasked_weight(name) != before[name])[~mask].sum())
        for name, mask in masks.items()
    )
    assert (moved > 0) == regrow


def test_it_is_bitsandbytes_own_with_the_groups_of_the_other():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    plain, paged = (
        make_optimizer(model, TrainingConfig(10, 1e-3, 4, paged=paged)) for paged in (False, True)
    )
    assert (
        isinstance(paged, PagedAdamW8bit)
        and paged.is_paged
        and not isinstance(plain, PagedAdamW8bit)
    )
    for one, other in zip(plain.param_groups, paged.param_groups, strict=True):
        assert [id(each) for each in one["params"]] == [id(each) for each in other["params"]]
        assert all(one[name] == other[name] for name in ("weight_decay", "pace", "betas", "eps"))


def test_micro_batches_accumulate_the_gradient_of_the_batch(folders):
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


def test_smaller_micro_batches_are_tried_when_memory_runs_out(folders, monkeypatch):
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


def test_other_errors_are_not_treated_as_out_of_memory(folders, monkeypatch):
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
