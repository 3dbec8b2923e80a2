"""Factors learn on from where a decomposition left them (fine-tuning: Lebedev et al. 2014,
arXiv:1412.6553; Kim et al. 2015, arXiv:1511.06530).
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn.utils import parametrize

from engine.events import ProgressEvent
from engine.models.layers import Layer
from engine.models.loaded_model import compute_place
from engine.runtime.threads import threads_to_train
from engine.step.pruning_plan import Subject
from engine.step.run_context import Bench
from engine.step.trained_weights import Trained
from engine.techniques.hooks import compress, plan, retrained
from engine.techniques.low_rank.tensor_decomposition.config import Kernels
from engine.tensors.low_rank import Factored
from engine.tensors.weights import Dense, Stored
from engine.training import Blend, Course, Exercises, Lessons, Pupil, Study, lessons_of, pupil_of
from engine.training.checkpoint import file_in
from engine.training.losses import by_labels

PHASE = "recovery"


@retrained.register
def retrained_kernels(how: Kernels, bench: Bench, subject: Subject) -> Trained | None:
    if not how.trains:
        return None
    device, _ = compute_place(bench.recipe)
    stored = dict(decomposed(how, bench, subject))
    layers = [
        layer for layer in subject.original.layers if isinstance(stored.get(layer.name), Factored)
    ]
    pupil = pupil_of(bench.folder, subject.original, layers, device)
    factors = {layer.name: hung(pupil, layer, stored[layer.name]) for layer in layers}
    lessons = lessons_of(bench.recipe, bench.folder, how.recovery * how.batch)
    with threads_to_train(subject.original.parameters):
        learn(how, bench, pupil, lessons, subject)
    return Trained(
        stored | {name: each.kept(stored[name]) for name, each in factors.items()}, pupil.plain()
    )


def decomposed(how: Kernels, bench: Bench, subject: Subject) -> Iterator[tuple[str, Stored]]:
    """(name, as it would be stored without training) of each layer."""
    layers = [layer for layer in subject.original.layers if layer.name in subject.targets]
    settings = plan(how, layers)
    for done, layer in enumerate(layers):
        bench.progress(ProgressEvent("factorizing", done, len(layers)))
        yield (
            layer.name,
            compress(
                settings[layer.name],
                subject.original.model.get_submodule(layer.name).stored.dense(torch.float32),
            ).to("cpu"),
        )


def learn(how: Kernels, bench: Bench, pupil: Pupil, lessons: Lessons, subject: Subject) -> None:
    def loss_of(logits: torch.Tensor, batch: Exercises) -> torch.Tensor:
        return by_labels(logits, batch.targets.to(logits.device))

    course, kept = (
        Course(how.recovery, how.rate, how.batch, bench.recipe.seed),
        file_in(subject.keeps(), PHASE),
    )
    Study(
        bench,
        pupil.model,
        lessons,
        course,
        Blend({"labels": (1.0, loss_of)}),
        PHASE,
        file=kept,
        rows=subject.trial.rows.curves,
    ).go()


class Factors(nn.Module):
    """In the place of a weight: what its factors make, so that gradients reach them. The weight
    itself
    rests.
    """

    def __init__(self, stored: Factored, kernel: torch.Size):
        super().__init__()
        self.stored, self.kernel = stored, kernel
        self.learning = nn.ParameterDict(
            {name: nn.Parameter(part.dense(torch.float32)) for name, part in stored.parts().items()}
        )

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.made().dense(torch.float32).view(self.kernel)

    def made(self) -> Factored:
        return replace(
            self.stored,
            **{name: Dense(tuple(factor.shape), factor) for name, factor in self.learning.items()},
        )

    def kept(self, before: Factored) -> Stored:
        """Factors as they are written: in the number format that they had."""
        formats = {name: part.weight.dtype for name, part in before.parts().items()}
        learnt = {
            name: factor.detach().to("cpu", formats[name]) for name, factor in self.learning.items()
        }
        return replace(
            before, **{name: Dense(tuple(factor.shape), factor) for name, factor in learnt.items()}
        )


def hung(pupil: Pupil, layer: Layer, stored: Factored) -> Factors:
    module = pupil.model.get_submodule(layer.name)
    factors = Factors(stored, module.weight.shape).to(module.weight.device)
    module.weight.requires_grad_(False)
    parametrize.register_parametrization(module, "weight", factors)
    return factors
