"""The original model with some layers swapped for a moment: what that does to its answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from engine.calibration import Seen
from engine.calibration.gradient_stats import Slopes, slopes_of
from engine.calibration.routing import Routing
from engine.calibration.stream import watched
from engine.config.technique import Needs
from engine.evaluation import Measured
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.measured import judging, placed
from engine.events import ProgressEvent
from engine.models.loaded_model import Opened, compute_place
from engine.step.run_context import Bench, Rows
from engine.tensors.weights import Stored

LOGITS_KEPT = 1 << 25  # of the original, in float32: 128 MB


@dataclass
class Trial:
    """Answers are those on calibration data: a distribution over tokens at each place, or over
    classes for each example.
    """

    bench: Bench
    original: Opened
    batches: list[Batch]
    rows: Rows  # what is found out on the way is noted here
    slopes_kept: dict[tuple[str, ...], dict[str, Slopes]] = field(default_factory=dict)

    def weight_of(self, name: str) -> torch.Tensor:
        """(out, in_) float32"""
        return self.original.model.get_submodule(name).stored.dense(torch.float32)

    def few(self, examples: int) -> "Trial":
        """The same on the first calibration examples only."""
        left, cut = examples, []
        for batch in self.batches:
            cut.append({key: value[:left] for key, value in batch.items()})
            left -= len(next(iter(batch.values())))
            if left <= 0:
                break
        return Trial(self.bench, self.original, cut, self.rows)

    def divergence(self, swapped: dict[str, Stored]) -> float:
        """KL divergence of the changed model's answers from the original's, the mean in nats."""
        # the original's, before anything is swapped
        pairs = list(zip(self.batches, self.answers, strict=True))
        with self.swapped(swapped):
            parts = [
                (before.exp() * (before - self.answers_to(batch))).sum(-1)
                for batch, before in pairs
            ]
        return torch.cat(parts).mean().item()

    def measured(self, swapped: dict[str, Stored], event: ProgressEvent) -> Measured:
        """Quality at the recipe's task; ``event`` names the measurement."""
        with self.swapped(swapped):
            return self.bench.measured(self.original.model, self.bench.folder, event)

    @torch.no_grad()
    def seen(self, names: list[str]) -> dict[str, Seen]:
        """Input statistics of these layers; layers whose inputs cannot be observed are left out."""
        device, _ = compute_place(self.bench.recipe)
        with watched(self.original.model, names, False, device) as seen:
            for done, batch in enumerate(self.batches):
                self.bench.progress(ProgressEvent("reading-calibration", done, len(self.batches)))
                self.logits(batch)
        routing = Routing.of(self.original.model, names)
        for name, each in seen.items():
            each.refuse_nonsense(name)
            routing.complete(name, each)
        return seen | routing.unreached(
            seen,
            lambda name: self.original.model.get_submodule(name).stored.shape[1],
            False,
            device,
        )

    def knows(self, needs: Needs, names: list[str]) -> dict[str, Seen | Slopes]:
        """Data of the original's layers that a technique with these needs uses; empty if it needs
        none.
        """
        if needs == "gradients":
            return self.slopes(tuple(names))
        return {} if needs == "nothing" else self.seen(names)

    def slopes(self, names: tuple[str, ...]) -> dict[str, Slopes]:
        """Gradients of the loss on calibration data, cached."""
        if names not in self.slopes_kept:
            device, _ = compute_place(self.bench.recipe)
            self.slopes_kept[names] = slopes_of(
                self.original.model, names, self.batches, device, self.bench.progress
            )
        return self.slopes_kept[names]

    @cached_property
    def answers(self) -> list[torch.Tensor]:
        """Outputs of the original model."""
        return [self.answers_to(batch) for batch in self.batches]

    def answers_to(self, batch: Batch) -> torch.Tensor:
        """Log-probabilities at evenly spaced positions, as many as fit into memory.  (places,
        tokens or classes)
        """
        with judging(self.original.model):
            logits = self.logits(batch)
            flat = logits.flatten(0, -2)
            every = -(-flat.numel() * len(self.batches) // LOGITS_KEPT)
            return flat[::every].float().log_softmax(-1)

    def logits(self, batch: Batch) -> torch.Tensor:
        return self.original.model(
            **placed(batch, self.original.model, self.original.device)
        ).logits

    @contextmanager
    def swapped(self, layers: dict[str, Stored]) -> Iterator[None]:
        """Layers by name, and those tied to them, store something else inside."""
        modules = self.original.model.named_modules()
        holders = {
            id(self.original.model.get_submodule(name).stored): stored
            for name, stored in layers.items()
        }
        changed: list[tuple[nn.Module, Stored]] = [
            (m, m.stored) for _, m in modules if id(getattr(m, "stored", None)) in holders
        ]
        for module, before in changed:
            module.stored = holders[id(before)].to(self.original.device)
        try:
            yield
        finally:
            for module, before in changed:
                module.stored = before
