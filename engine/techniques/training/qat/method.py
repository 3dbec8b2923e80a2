"""Quantization-aware training: weights learn on the grid, or at the three values, that they will be
stored in.
"""

import torch

from engine.errors import PlainError
from engine.models.layers import Layer
from engine.models.loaded_model import compute_place
from engine.models.loading import untrained
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Subject
from engine.step.run_context import Bench
from engine.step.trained_weights import Trained
from engine.techniques.hooks import blueprint, compress, plan, retrained, sketch
from engine.techniques.quantization.fixed_levels.config import Ternary
from engine.techniques.quantization.grid import stored_grid
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.techniques.training.fake_quant import (
    Range,
    Rounded,
    fixed_range,
    hang,
    static,
    with_rounded_inputs,
)
from engine.techniques.training.finetuner import learn
from engine.techniques.training.qat.config import QAT, BitNet
from engine.tensors.sparse_codes import left_in
from engine.tensors.weights import Stored
from engine.training import Pupil, pupil_of
from engine.training.trainable_model import laid_flat

# a look at one layer, and a forecast: rounded without training, which moves codes and leaves the
# bytes as they are


@compress.register
def compress_qat(how: QAT, weight: torch.Tensor, seen: None = None) -> Stored:
    return with_rounded_inputs(how, stored_grid(weight, how))


@compress.register
def compress_bitnet(how: BitNet, weight: torch.Tensor, seen: None = None) -> Stored:
    return with_rounded_inputs(how, compress.dispatch(Ternary)(how, weight))


@blueprint.register
def blueprint_qat(how: QAT, shape: tuple[int, int]) -> Stored:
    return with_rounded_inputs(
        how, blueprint.dispatch(RoundToNearest)(how, shape), without_values(how)
    )


@blueprint.register
def blueprint_bitnet(how: BitNet, shape: tuple[int, int]) -> Stored:
    return with_rounded_inputs(how, blueprint.dispatch(Ternary)(how, shape), without_values(how))


def without_values(how: QAT | BitNet) -> Range | None:
    return {"scale": sketch(1), "zero": sketch(1)} if static(how) else None


@plan.register(QAT)
@plan.register(BitNet)
def plan_qat_or_bitnet(
    how: QAT | BitNet, layers: list[Layer], trial: Trial | None = None
) -> dict[str, QAT | BitNet]:
    """Use ranges found during training for layers whose inputs cannot be observed."""
    unseen = how.model_copy(update={"activation_range": "dynamic"})
    return {
        layer.name: unseen if layer.kind == "embedding" or layer.groups > 1 else how
        for layer in layers
    }


@retrained.register(QAT)
@retrained.register(BitNet)
def retrained_qat_or_bitnet(how: QAT | BitNet, bench: Bench, subject: Subject) -> Trained:
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    refuse_rounded_inputs(subject, layers)
    pupil = pupil_of(bench.folder, subject.original, layers, compute_place(bench.recipe)[0])
    if isinstance(how, BitNet) and how.start == "random":
        begin_anew(pupil, bench)
    settings = plan(how, layers)
    left = (
        {
            layer.name: left_in(subject.original.model.get_submodule(layer.name).stored)
            for layer in layers
        }
        if bench.keeps_zeros
        else {}
    )
    fixed = ranges(how, settings, subject)
    rounded = {
        layer.name: hang(
            pupil, layer, settings[layer.name], left.get(layer.name), fixed.get(layer.name)
        )
        for layer in layers
    }
    pull = how.pull if isinstance(how, QAT) else 0.0
    learn(
        how,
        bench,
        subject,
        pupil,
        how.technique,
        (lambda: pull * distance(pupil, rounded)) if pull else None,
    )
    stored = {name: each.stored(held_by(pupil, name)).to("cpu") for name, each in rounded.items()}
    return Trained(stored, pupil.plain())


def ranges(
    how: QAT | BitNet, settings: dict[str, QAT | BitNet], subject: Subject
) -> dict[str, Range]:
    """Ranges of the inputs of each layer, from calibration data in the unrounded model. Raises
    PlainError if no data reaches a layer.
    """
    names = [name for name, setting in settings.items() if static(setting)]
    seen = subject.trial.seen(names) if names else {}
    if missed := [name for name in names if name not in seen]:
        raise PlainError(
            f"{missed[0]}: No calibration data reached it, so it can have no static range; "
            "set activation_range to dynamic."
        )
    return {name: fixed_range(how, each) for name, each in seen.items()}


def distance(pupil: Pupil, rounded: dict[str, Rounded]) -> torch.Tensor:
    """Mean squared distance of the weights to their levels, in steps, over all layers."""
    return sum(each.missed(held_by(pupil, name)) for name, each in rounded.items()) / len(rounded)


def held_by(pupil: Pupil, name: str) -> torch.Tensor:
    """The whole weight behind the rounded one, as the module holds it."""
    return pupil.model.get_submodule(name).parametrizations.weight.original


def refuse_rounded_inputs(subject: Subject, layers: list[Layer]) -> None:
    for layer in layers:
        stored, inputs = (
            subject.original.model.get_submodule(layer.name).stored,
            torch.zeros(1, layer.matrix_shape[1]),
        )
        if stored.received(inputs) is not inputs:
            raise PlainError(
                f"{layer.name}: The step before rounds its inputs, and this one would not; "
                "leave that step out and set activation_bits."
            )


@torch.no_grad()
def begin_anew(pupil: Pupil, bench: Bench) -> None:
    """The layers' weights as the architecture draws them, by the recipe's seed. Raises PlainError
    after a step that has changed shapes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.recipe.seed)
        drawn = untrained(bench.folder)
    for layer in pupil.layers:
        first, weight = drawn.get_submodule(layer.name), pupil.model.get_submodule(layer.name)
        if first.weight.shape != weight.weight.shape:
            raise PlainError(
                f"{layer.name} has another shape than config.json says, so random weights "
                "have none; set start to checkpoint."
            )
        laid_flat(weight, weight.weight).copy_(laid_flat(first, first.weight))
