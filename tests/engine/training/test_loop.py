import math

import pytest
import torch
from bitsandbytes.optim import PagedAdamW8bit
from torch import nn
from torch.nn.functional import cross_entropy

from engine.errors import PlainError
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.training import (
    TrainingConfig,
    held_out_quality,
    make_trainable,
    train_steps,
)
from engine.training.accelerated import Float16Accelerator, accelerator_for
from engine.training.loop import batch_indices, make_optimizer
from engine.training.losses import l1_norm, label_loss
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.training_examples import exercises

CPU = torch.device("cpu")
COURSE = TrainingConfig(steps=3, rate=1e-2, batch=4)


@pytest.fixture
def pupil(folders):
    def of(architecture, prepared=True, **cuts):
        folder = resolve_model(str(folders[architecture]))
        at = load_model(folder, CPU, torch.float32)
        recipe = recipe_for("resnet", folders["resnet"], folders["resnet"])
        mine = make_trainable(folder, at, selected_layers(at.layers, recipe.layers), CPU)
        if prepared:
            mine.attach_masks(**cuts)
        return mine

    return of


def labels(logits, batch):
    return label_loss(logits, batch.targets)


def training_losses(pupil, architecture, course=COURSE, loss=labels) -> list[float]:
    return [each for _, each in train_steps(pupil.model, exercises(architecture), course, loss)]


@for_each("architecture", ["llama", "llama-tied", "gpt2", "bert", "resnet"])
def test_layers_norms_and_biases_learn_and_everything_else_stays(architecture, pupil):
    mine = pupil(architecture)
    before = {name: value.clone() for name, value in mine.model.state_dict().items()}
    training_losses(mine, architecture)
    moved = {
        name
        for name, value in mine.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    learning = {f"{layer.name}.parametrizations.weight.original" for layer in mine.layers}
    assert learning <= moved and moved - learning <= mine.original.plain.keys() and moved - learning


@pytest.mark.parametrize("architecture", ["llama", "resnet"])
def test_a_rate_of_zero_moves_nothing_not_even_statistics(architecture, pupil):
    mine = pupil(architecture)
    before = mine.state()
    training_losses(mine, architecture, TrainingConfig(3, 0.0, 4))
    assert all(torch.equal(value, before[name]) for name, value in mine.state().items())


def test_batch_norms_count_anew_what_they_see(pupil):
    mine = pupil("resnet")
    training_losses(mine, "resnet")
    norms = {name: value for name, value in mine.plain().items() if "running_mean" in name}
    assert norms and all(
        not torch.equal(value, mine.original.plain[name]) for name, value in norms.items()
    )


def test_the_original_and_its_files_are_left_alone(pupil, folders):
    mine = pupil("gpt2")
    before = (folders["gpt2"] / "model.safetensors").read_bytes()
    held = {
        layer.name: mine.original.model.get_submodule(layer.name).stored.to_dense().clone()
        for layer in mine.layers
    }
    training_losses(mine, "gpt2")
    assert (folders["gpt2"] / "model.safetensors").read_bytes() == before
    assert all(
        torch.equal(mine.original.model.get_submodule(name).stored.to_dense(), weight)
        for name, weight in held.items()
    )
    assert all(not torch.equal(mine.weight(name), weight) for name, weight in held.items())


def test_seeds_repeat_to_the_bit_and_differ_from_one_another(pupil):
    losses = [
        training_losses(pupil("bert", gated=True), "bert", TrainingConfig(3, 1e-2, 4, seed))
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_it_learns(pupil):
    mine, course = pupil("resnet"), TrainingConfig(steps=30, rate=1e-2, batch=12)
    before = held_out_quality(mine.model, exercises("resnet")).value
    losses = training_losses(mine, "resnet", course)
    assert (
        losses[-1] < losses[0] / 2
        and held_out_quality(mine.model, exercises("resnet")).value > before
    )


def test_trainings_in_other_number_formats_follow_one_another_in_a_process(pupil):
    """accelerate's state is one for a process and takes a single format; each training here has its
    own.
    """
    mine, seen = pupil("bert", prepared=False), []

    def recording_loss(logits, batch):
        seen.append(logits.dtype)
        return labels(logits, batch)

    for half in (False, True, False):
        training_losses(mine, "bert", TrainingConfig(1, 1e-3, 4, half=half), recording_loss)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


def by_torch_alone(
    model: torch.nn.Module,
    course: TrainingConfig,
    cast: torch.dtype | None,
    scaler: torch.amp.GradScaler,
) -> None:
    """AdamW under a rise and a cosine with clipped gradients, written out."""
    optimizer = make_optimizer(model, course)
    for step, rows in zip(range(course.steps), batch_indices(12, course), strict=False):
        batch = exercises("bert").subset(rows)
        for group in optimizer.param_groups:
            group["lr"] = course.rate_at(step)
        model.train()
        torch.manual_seed(course.seed_at(step))
        optimizer.zero_grad()
        with torch.autocast("cpu", cast, enabled=cast is not None):
            loss = cross_entropy(model(**batch.inputs).logits, batch.targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), course.clip)
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
def test_its_steps_are_those_of_torch_alone(cast, hand, pupil):
    mine, bare, accelerator = pupil("bert", prepared=False), pupil("bert", prepared=False), hand()
    for _ in train_steps(mine.model, exercises("bert"), COURSE, labels, accelerator=accelerator):
        pass
    scaler = torch.amp.GradScaler(
        "cpu", 1024.0, enabled=accelerator.scaler is not None and accelerator.scaler.is_enabled()
    )
    by_torch_alone(bare.model, COURSE, cast, scaler)
    torch.testing.assert_close(dict(mine.model.state_dict()), dict(bare.model.state_dict()))


def test_every_example_comes_once_before_any_comes_again(pupil):
    seen = []

    def recording_loss(logits, batch):
        seen.extend(batch.inputs["pixel_values"][:, 0, 0, 0].tolist())
        return labels(logits, batch)

    training_losses(pupil("resnet"), "resnet", TrainingConfig(3, 0.0, 4), recording_loss)
    assert len(set(seen)) == 12


def test_a_loss_that_is_no_number_is_said_in_a_sentence(pupil):
    with pytest.raises(
        PlainError,
        match=r"NaN or infinite at training step 1; lower Learning rate \(rate\), which is 0\.01",
    ):
        training_losses(
            pupil("resnet"), "resnet", loss=lambda logits, batch: labels(logits, batch) * math.nan
        )


def test_a_penalty_on_size_shrinks_weights(pupil):
    def norm_at(price: float) -> float:
        mine = pupil("resnet")
        modules = [mine.model.get_submodule(layer.name) for layer in mine.layers]
        training_losses(
            mine,
            "resnet",
            TrainingConfig(10, 1e-3, 4),
            lambda logits, batch: (
                labels(logits, batch) + price * l1_norm(m.weight for m in modules)
            ),
        )
        return sum(mine.weight(layer.name).abs().sum().item() for layer in mine.layers)

    assert norm_at(1e-2) < norm_at(0.0)


@for_each("architecture", ["gpt2", "resnet"])
@for_each("regrow", [False, True])
def test_what_is_cut_stays_zero_forward_and_learns_unseen_only_where_it_may_come_back(
    architecture, regrow, pupil
):
    mine = pupil(architecture, regrow=regrow)
    masks = {
        layer.name: torch.rand(layer.matrix_shape, generator=torch.Generator().manual_seed(1)) > 0.5
        for layer in mine.layers
    }
    for name, mask in masks.items():
        mine.set_mask(name, mask)
    before = {name: mine.unmasked_weight(name).clone() for name in masks}
    training_losses(mine, architecture, TrainingConfig(3, 1e-2, 4, weight_decay=0.0))
    assert all(not mine.weight(name)[~mask].any() for name, mask in masks.items())
    moved = sum(
        int((mine.unmasked_weight(name) != before[name])[~mask].sum())
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
