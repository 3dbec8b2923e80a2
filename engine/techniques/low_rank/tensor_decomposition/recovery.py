"""Fine-tuning of factors after a decomposition (Lebedev et al. 2014, arXiv:1412.6553; Kim et al.
2015, arXiv:1511.06530).
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn.utils import parametrize

from engine.events import ProgressEvent
from engine.models.layers import Layer
from engine.models.loaded_model import device_and_dtype
from engine.runtime.threads import threads_to_train
from engine.step.pruning_plan import TechniqueInput
from engine.step.run_context import RunContext
from engine.step.trained_weights import TrainedWeights
from engine.techniques.hooks import compress, plan, train_weights
from engine.techniques.low_rank.tensor_decomposition.config import KernelDecomposition
from engine.tensors.low_rank import FactoredWeight
from engine.tensors.weights import DenseWeight, StoredWeight
from engine.training import (
    EncodedExamples,
    TrainableModel,
    Trainer,
    TrainingConfig,
    TrainingData,
    WeightedLoss,
    load_recipe_training_data,
    make_trainable,
)
from engine.training.checkpoint import checkpoint_file
from engine.training.losses import label_loss

PHASE = "recovery"


@train_weights.register
def train_weights_kernels(
    config: KernelDecomposition, context: RunContext, technique_input: TechniqueInput
) -> TrainedWeights | None:
    if not config.trains:
        return None
    device, _ = device_and_dtype(context.recipe)
    stored = dict(decomposed_layers(config, context, technique_input))
    layers = [
        layer
        for layer in technique_input.original.layers
        if isinstance(stored.get(layer.name), FactoredWeight)
    ]
    trainable = make_trainable(context.folder, technique_input.original, layers, device)
    factors = {layer.name: attach_factors(trainable, layer, stored[layer.name]) for layer in layers}
    training_data = load_recipe_training_data(
        context.recipe, context.folder, config.recovery * config.batch
    )
    with threads_to_train(technique_input.original.parameters):
        train_factors(config, context, trainable, training_data, technique_input)
    return TrainedWeights(
        stored
        | {
            name: trainable_factors.stored_factors(stored[name])
            for name, trainable_factors in factors.items()
        },
        trainable.plain(),
    )


def decomposed_layers(
    config: KernelDecomposition, context: RunContext, technique_input: TechniqueInput
) -> Iterator[tuple[str, StoredWeight]]:
    """(name, untrained stored weight) of each layer."""
    layers = [
        layer for layer in technique_input.original.layers if layer.name in technique_input.targets
    ]
    settings = plan(config, layers)
    for done, layer in enumerate(layers):
        context.progress(ProgressEvent("factorizing", done, len(layers)))
        yield (
            layer.name,
            compress(
                settings[layer.name],
                technique_input.original.model.get_submodule(layer.name).stored.to_dense(
                    torch.float32
                ),
            ).to("cpu"),
        )


def train_factors(
    config: KernelDecomposition,
    context: RunContext,
    trainable: TrainableModel,
    training_data: TrainingData,
    technique_input: TechniqueInput,
) -> None:
    def loss_of(logits: torch.Tensor, batch: EncodedExamples) -> torch.Tensor:
        return label_loss(logits, batch.targets.to(logits.device))

    training_config, best = (
        TrainingConfig(config.recovery, config.rate, config.batch, context.recipe.seed),
        checkpoint_file(technique_input.open_checkpoint_folder(), PHASE),
    )
    Trainer(
        context,
        trainable.model,
        training_data,
        training_config,
        WeightedLoss({"labels": (1.0, loss_of)}),
        PHASE,
        file=best,
        rows=technique_input.layer_swap.tables.curves,
    ).run()


class TrainableFactors(nn.Module):
    """Parametrization that replaces a weight by the product of its factors, which are trained
    instead of it.
    """

    def __init__(self, stored: FactoredWeight, kernel: torch.Size):
        super().__init__()
        self.stored, self.kernel = stored, kernel
        self.learning = nn.ParameterDict(
            {
                name: nn.Parameter(part.to_dense(torch.float32))
                for name, part in stored.parts().items()
            }
        )

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.current_factors().to_dense(torch.float32).view(self.kernel)

    def current_factors(self) -> FactoredWeight:
        return replace(
            self.stored,
            **{
                name: DenseWeight(tuple(factor.shape), factor)
                for name, factor in self.learning.items()
            },
        )

    def stored_factors(self, before: FactoredWeight) -> StoredWeight:
        """Factors in the dtypes in which they were stored."""
        formats = {name: part.weight.dtype for name, part in before.parts().items()}
        trained = {
            name: factor.detach().to("cpu", formats[name]) for name, factor in self.learning.items()
        }
        return replace(
            before,
            **{name: DenseWeight(tuple(factor.shape), factor) for name, factor in trained.items()},
        )


def attach_factors(
    trainable: TrainableModel, layer: Layer, stored: FactoredWeight
) -> TrainableFactors:
    module = trainable.model.get_submodule(layer.name)
    factors = TrainableFactors(stored, module.weight.shape).to(module.weight.device)
    module.weight.requires_grad_(False)
    parametrize.register_parametrization(module, "weight", factors)
    return factors
