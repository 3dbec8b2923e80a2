"""Evaluation of the original model with some layers temporarily replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from engine.calibration import InputStats
from engine.calibration.gradient_stats import GradientStats, accumulate_gradients
from engine.calibration.routing import ExpertRouting
from engine.calibration.stream import observe_inputs
from engine.config.technique import Needs
from engine.evaluation import EvaluationResult
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.measured import evaluation_mode, inputs_on_device
from engine.events import ProgressEvent
from engine.models.loaded_model import LoadedModel, device_and_dtype
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder
from engine.tensors.weights import StoredWeight

MAX_CACHED_LOGITS = 1 << 25  # of the original model, in float32: 128 MB


@dataclass
class LayerSwap:
    """Outputs are compared on calibration data: distributions over tokens at each position, or over
    classes for each example.
    """

    context: RunContext
    original: LoadedModel
    batches: list[Batch]
    tables: TableBuilder  # receives rows found during the evaluation
    gradient_stats_cache: dict[tuple[str, ...], dict[str, GradientStats]] = field(
        default_factory=dict
    )

    def weight_of(self, name: str) -> torch.Tensor:
        """(out, in_) float32"""
        return self.original.model.get_submodule(name).stored.to_dense(torch.float32)

    def with_first_examples(self, examples: int) -> "LayerSwap":
        """Copy that uses only the first calibration examples."""
        remaining, batches = examples, []
        for batch in self.batches:
            batches.append({key: value[:remaining] for key, value in batch.items()})
            remaining -= len(next(iter(batch.values())))
            if remaining <= 0:
                break
        return LayerSwap(self.context, self.original, batches, self.tables)

    def divergence(self, replacements: dict[str, StoredWeight]) -> float:
        """Mean KL divergence of the changed model's outputs from the original's, in nats."""
        # computed before anything is swapped
        pairs = list(zip(self.batches, self.original_log_probs, strict=True))
        with self.swap_layers(replacements):
            parts = [
                (before.exp() * (before - self.log_probs(batch))).sum(-1) for batch, before in pairs
            ]
        return torch.cat(parts).mean().item()

    def evaluate(
        self, replacements: dict[str, StoredWeight], event: ProgressEvent
    ) -> EvaluationResult:
        """Quality in the recipe's task; ``event`` describes the measurement."""
        with self.swap_layers(replacements):
            return self.context.evaluate(self.original.model, self.context.folder, event)

    @torch.no_grad()
    def input_stats(self, names: list[str]) -> dict[str, InputStats]:
        """Input statistics of these layers; layers whose inputs cannot be observed are left out."""
        device, _ = device_and_dtype(self.context.recipe)
        with observe_inputs(self.original.model, names, False, device) as stats_by_layer:
            for done, batch in enumerate(self.batches):
                self.context.progress(ProgressEvent("reading-calibration", done, len(self.batches)))
                self.logits(batch)
        routing = ExpertRouting.for_layers(self.original.model, names)
        for name, stats in stats_by_layer.items():
            stats.check_usable(name)
            routing.fill_missing_tokens(name, stats)
        return stats_by_layer | routing.unreached_stats(
            stats_by_layer,
            lambda name: self.original.model.get_submodule(name).stored.shape[1],
            False,
            device,
        )

    def layer_stats(self, needs: Needs, names: list[str]) -> dict[str, InputStats | GradientStats]:
        """Data of the original's layers that a technique with these ``needs`` uses; empty if it
        needs none.
        """
        if needs == "gradients":
            return self.gradient_stats(tuple(names))
        return {} if needs == "nothing" else self.input_stats(names)

    def gradient_stats(self, names: tuple[str, ...]) -> dict[str, GradientStats]:
        """Gradients of the loss on calibration data, cached."""
        if names not in self.gradient_stats_cache:
            device, _ = device_and_dtype(self.context.recipe)
            self.gradient_stats_cache[names] = accumulate_gradients(
                self.original.model, names, self.batches, device, self.context.progress
            )
        return self.gradient_stats_cache[names]

    @cached_property
    def original_log_probs(self) -> list[torch.Tensor]:
        """Outputs of the original model."""
        return [self.log_probs(batch) for batch in self.batches]

    def log_probs(self, batch: Batch) -> torch.Tensor:
        """Log-probabilities at evenly spaced positions, as many as fit into memory. (positions,
        tokens or classes)
        """
        with evaluation_mode(self.original.model):
            logits = self.logits(batch)
            flat = logits.flatten(0, -2)
            every = -(-flat.numel() * len(self.batches) // MAX_CACHED_LOGITS)
            return flat[::every].float().log_softmax(-1)

    def logits(self, batch: Batch) -> torch.Tensor:
        return self.original.model(
            **inputs_on_device(batch, self.original.model, self.original.device)
        ).logits

    @contextmanager
    def swap_layers(self, layers: dict[str, StoredWeight]) -> Iterator[None]:
        """Replace the stored weights of the named layers, and of those tied to them, inside the
        context.
        """
        modules = self.original.model.named_modules()
        replacements = {
            id(self.original.model.get_submodule(name).stored): stored
            for name, stored in layers.items()
        }
        changed: list[tuple[nn.Module, StoredWeight]] = [
            (m, m.stored) for _, m in modules if id(getattr(m, "stored", None)) in replacements
        ]
        for module, before in changed:
            module.stored = replacements[id(before)].to(self.original.device)
        try:
            yield
        finally:
            for module, before in changed:
                module.stored = before
