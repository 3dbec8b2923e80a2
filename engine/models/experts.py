"""Mixture-of-experts layers with one linear layer per expert and projection.

transformers stores the weights of all experts of a block in one 3-D parameter. Here each expert
gets ``nn.Linear`` modules whose weights are views of that parameter, so that techniques treat them
like other layers, under names such as ``model.layers.0.mlp.experts.3.down_proj``.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

# projection -> weights of all experts (experts, out, in), or biases (experts, out)
Stacks = dict[str, torch.Tensor]
NORM = "post_expert_norm"
TOKENS = 12  # in the example inputs of a module


# --- modules --------------------------------------------------------------------------------------


class Expert(nn.Module):
    """Linear layers of one expert, called by the module that routes tokens to it."""

    def __init__(self, number: int, weights: Stacks, biases: Stacks):
        super().__init__()
        for name, stack in weights.items():
            setattr(
                self,
                name,
                linear_view(stack[number], biases[name][number] if name in biases else None),
            )


class RoutedExperts(nn.Module):
    """Experts that receive the tokens routed to them. Activation, gate and norm after each expert
    are the original module's.
    """

    def __init__(self, fused: nn.Module, layout: "FusedLayout"):
        super().__init__()
        weights, biases = layout.stacks(dict(fused.named_parameters()))
        self.layout, self.count = layout, len(weights["down_proj"])
        for number in range(self.count):
            self.add_module(str(number), Expert(number, weights, biases))
        if hasattr(fused, NORM):
            setattr(self, NORM, getattr(fused, NORM))
        self.activation = layout.activation(fused)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Compute the weighted sum of the experts' outputs for each token.

        hidden_states: (..., hidden), top_k_index and top_k_weights: (tokens, k) -> (..., hidden).
        An index beyond the last expert masks a position.
        """
        states = hidden_states.reshape(-1, hidden_states.shape[-1])
        total = torch.zeros_like(states)
        for number in top_k_index.unique().tolist():
            if number < self.count:
                slot, token = torch.where(number == top_k_index.T)
                output = (
                    self.expert_output(number, states[token]) * top_k_weights[token, slot, None]
                )
                # index_add_ wakes all threads even for two rows
                total.index_put_((token,), output.to(total.dtype), accumulate=True)
        return total.view_as(hidden_states)

    def example(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Random arguments of ``forward``; the last expert gets no token."""
        states, weights = (
            torch.randn(TOKENS, self.width, generator=generator),
            torch.rand(TOKENS, 2, generator=generator),
        )
        index = torch.stack(
            [torch.randperm(max(1, self.count - 1), generator=generator)[:2] for _ in range(TOKENS)]
        )
        return states, index, weights

    @property
    def width(self) -> int:
        return self.get_submodule("0").up_proj.in_features

    def expert_output(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """Output of one expert for its tokens. (tokens, hidden) -> (tokens, hidden)"""
        expert = self.get_submodule(str(number))
        inner = (
            self.layout.gate_and_up_output(expert.gate_proj(states), expert.up_proj(states))
            if self.layout.gated
            else expert.up_proj(states)
        )
        output = expert.down_proj(self.activation(inner))
        return self.post_expert_norm(output) if hasattr(self, NORM) else output


class SortedExperts(RoutedExperts):
    """Experts that receive one tensor with an equal number of tokens for each in turn; tokens not
    meant for an expert are zero.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Apply each expert to its part of the tokens.

        hidden_states: (experts * tokens, hidden) -> the same shape
        """
        states = hidden_states.view(self.count, -1, hidden_states.shape[-1])
        total = torch.zeros_like(states)
        for number, (has_values, own) in enumerate(zip(states.any(-1), states, strict=True)):
            if has_values.any():  # without biases a zero token's output is zero
                total[number, has_values] = self.expert_output(number, own[has_values])
        return total.view(-1, hidden_states.shape[-1])

    def example(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        states = torch.randn(self.count, TOKENS, self.width, generator=generator)
        has_values = torch.rand(self.count, TOKENS, 1, generator=generator) < 0.5
        has_values[-1] = False
        return ((states * has_values).flatten(0, 1),)


class ParallelLinear(nn.Module):
    """One linear layer per expert; tokens are sorted by expert, with the number of tokens of
    each.
    """

    def __init__(self, fused: nn.Module, layout: "ParallelLayout"):
        super().__init__()
        weights, _ = layout.stacks(dict(fused.named_parameters()))
        self.layout, self.count, self.out_features = layout, *weights[""].shape[:2]
        for number in range(self.count):
            self.add_module(str(number), linear_view(weights[""][number], None))

    def forward(self, inputs: torch.Tensor, expert_size: list[int]) -> torch.Tensor:
        """Apply each expert's layer to its tokens. (tokens, in) -> (tokens, out)"""
        parts = zip(range(self.count), inputs.split(list(expert_size)), strict=True)
        outputs = [self.get_submodule(str(number))(part) for number, part in parts if len(part)]
        return torch.cat(outputs) if outputs else inputs.new_zeros(0, self.out_features)

    def example(self, generator: torch.Generator) -> tuple[torch.Tensor, list[int]]:
        sizes = [TOKENS] * (self.count - 1) + [0]
        return torch.randn(
            sum(sizes), self.get_submodule("0").in_features, generator=generator
        ), sizes


ROUTING = (RoutedExperts, ParallelLinear)


def linear_view(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """Linear layer on views of larger tensors. weight: (out, in), bias: (out,)"""
    linear = nn.Linear.__new__(nn.Linear)
    # otherwise the constructor would draw random weights for each of thousands of layers
    nn.Module.__init__(linear)
    linear.out_features, linear.in_features = weight.shape
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.register_parameter(
        "bias", None if bias is None else nn.Parameter(bias, requires_grad=False)
    )
    return linear


def without_parameters(fused: nn.Module) -> nn.Module:
    """Copy of the module with its attributes and parameter-free children, as its activation needs
    them.
    """
    parameterless = copy.copy(fused)
    parameterless._parameters = {}
    parameterless._modules = {
        name: child
        for name, child in fused._modules.items()
        if not any(True for _ in child.parameters())
    }
    return parameterless


@dataclass(frozen=True)
class Gate:
    """``function(gate) * up`` for both in one tensor. (tokens, 2 * inner) -> (tokens, inner)"""

    function: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, inner: torch.Tensor) -> torch.Tensor:
        gate, up = inner.chunk(2, dim=-1)
        return self.function(gate) * up


# --- storage layouts ------------------------------------------------------------------------------


@dataclass(frozen=True)
class FusedLayout:
    """Layout with one 3-D parameter for the first product of all experts and one for the second, as
    ``use_experts_implementation`` describes.
    """

    module: type[RoutedExperts]
    gated: bool = True  # gate and up are stored in one parameter
    transposed: bool = False  # (experts, in, out) instead of (experts, out, in)
    interleaved: bool = False  # rows of gate and up alternate instead of following each other

    @property
    def tensors(self) -> set[str]:
        return {"gate_up_proj" if self.gated else "up_proj", "down_proj"}

    def stacks(self, tensors: Stacks) -> tuple[Stacks, Stacks]:
        """Views of the weights and biases of each projection."""
        weights = {name: tensors[name].detach() for name in self.tensors}
        weights = {name: value.mT if self.transposed else value for name, value in weights.items()}
        biases = {
            name: tensors[f"{name}_bias"].detach()
            for name in self.tensors
            if f"{name}_bias" in tensors
        }
        return self.split(weights), self.split(biases)

    def split(self, stacks: Stacks) -> Stacks:
        if "gate_up_proj" not in stacks:
            return stacks
        gate_and_up = stacks["gate_up_proj"]
        gate, up = (
            (gate_and_up[:, 0::2], gate_and_up[:, 1::2])
            if self.interleaved
            else gate_and_up.chunk(2, dim=1)
        )
        return (
            {"gate_proj": gate, "up_proj": up, "down_proj": stacks["down_proj"]}
            if "down_proj" in stacks
            else {"gate_proj": gate, "up_proj": up}
        )

    def gate_and_up_output(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Output of the single product in the original module. (tokens, inner) each -> (tokens, 2 *
        inner)
        """
        return (
            torch.stack([gate, up], -1).flatten(-2)
            if self.interleaved
            else torch.cat([gate, up], -1)
        )

    def activation(self, fused: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """Function between the first and last linear layers: (tokens, inner), or twice as wide if
        gated -> (tokens, inner)
        """
        # a method of the whole module would keep a reference to its parameters
        parameterless = without_parameters(fused)
        if not self.gated:
            return parameterless.act_fn
        return getattr(parameterless, "_apply_gate", None) or Gate(parameterless.act_fn)


@dataclass(frozen=True)
class FlatLayout(FusedLayout):
    """Layout of DBRX: three 2-D parameters with the experts' rows stacked; the last one is
    transposed.
    """

    experts: int = 0

    @property
    def tensors(self) -> set[str]:
        return {"mlp.w1", "mlp.v1", "mlp.w2"}

    def stacks(self, tensors: Stacks) -> tuple[Stacks, Stacks]:
        gate, up, down = (
            tensors[f"mlp.{name}"].detach().unflatten(0, (self.experts, -1))
            for name in ("w1", "v1", "w2")
        )
        return {"gate_proj": gate, "up_proj": up, "down_proj": down.mT}, {}

    def activation(self, fused: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return Gate(fused.mlp.activation_fn)


@dataclass(frozen=True)
class ParallelLayout:
    """Layout of JetMoe: one 3-D parameter with a linear layer per expert."""

    module: type[ParallelLinear]
    tensors: frozenset[str] = frozenset({"weight"})

    def stacks(self, tensors: Stacks) -> tuple[Stacks, Stacks]:
        return {"": tensors["weight"].detach()}, {}


def layouts_for(fused: nn.Module) -> Iterator[FusedLayout | ParallelLayout]:
    """Layouts whose tensors the module has, starting with the one that its attributes suggest."""
    parameters = {
        name: value for name, value in fused.named_parameters() if not name.startswith(f"{NORM}.")
    }
    names = {name.removesuffix("_bias") for name in parameters}
    if names == {"weight"} and fused.weight.ndim == 3:
        yield ParallelLayout(ParallelLinear)
    if names == FlatLayout(RoutedExperts).tensors:
        yield FlatLayout(RoutedExperts, experts=fused.num_experts)
    for gated in (True, False):
        if names == FusedLayout(RoutedExperts, gated).tensors and parameters["down_proj"].ndim == 3:
            transposed, concatenated = (
                getattr(fused, "is_transposed", False),
                getattr(fused, "is_concatenated", True),
            )
            for module, flip_order, flip_transposed in product(
                (RoutedExperts, SortedExperts), (False, True), (False, True)
            ):
                yield FusedLayout(
                    module, gated, transposed ^ flip_transposed, not concatenated ^ flip_order
                )
