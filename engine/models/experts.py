"""Mixture-of-experts layers with one linear layer per expert and projection.

transformers stores the weights of all experts of a block in one 3-D parameter. Here each expert
gets ``nn.Linear`` modules whose weights are views of that parameter, so that techniques treat them
like other layers, under names such as ``model.layers.0.mlp.experts.3.down_proj``.

The storage layout of a module is found by comparing outputs instead of by its class: a scaled-down
copy computes a reference, and the first known layout with equal outputs is used. A module that no
layout reproduces is left unchanged.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

# projection -> weights of all experts (experts, out, in), or biases (experts, out)
Stacks = dict[str, torch.Tensor]
NORM = "post_expert_norm"
SMALL = 6  # numbers in a row of the scaled-down copy
TOLERANCE = 1e-4  # of the largest output of the scaled-down copy, in float32
TOKENS = 12  # that run through the scaled-down copy


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
                place, token = torch.where(number == top_k_index.T)
                output = (
                    self.expert_output(number, states[token]) * top_k_weights[token, place, None]
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
        for number, (treated, own) in enumerate(zip(states.any(-1), states, strict=True)):
            if treated.any():  # without biases a zero token's output is zero
                total[number, treated] = self.expert_output(number, own[treated])
        return total.view(-1, hidden_states.shape[-1])

    def example(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        states = torch.randn(self.count, TOKENS, self.width, generator=generator)
        treated = torch.rand(self.count, TOKENS, 1, generator=generator) < 0.5
        treated[-1] = False
        return ((states * treated).flatten(0, 1),)


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
    made = nn.Linear.__new__(nn.Linear)
    # the layer's own would draw random weights first, once for each of thousands of layers
    nn.Module.__init__(made)
    made.out_features, made.in_features = weight.shape
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.register_parameter(
        "bias", None if bias is None else nn.Parameter(bias, requires_grad=False)
    )
    return made


def without_parameters(fused: nn.Module) -> nn.Module:
    """Copy of the module with its attributes and parameter-free children, as its activation needs
    them.
    """
    bare = copy.copy(fused)
    bare._parameters = {}
    bare._modules = {
        name: child
        for name, child in fused._modules.items()
        if not any(True for _ in child.parameters())
    }
    return bare


@dataclass(frozen=True)
class Gate:
    """``function(gate) * up`` for both in one tensor. (tokens, 2 * inner) -> (tokens, inner)"""

    function: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, inner: torch.Tensor) -> torch.Tensor:
        gate, up = inner.chunk(2, dim=-1)
        return self.function(gate) * up


# --- storage --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FusedLayout:
    """Layout with one 3-D parameter for the first product of all experts and one for the second, as
    ``use_experts_implementation`` describes.
    """

    module: type[RoutedExperts]
    gated: bool = True  # gate and up stand in one parameter
    transposed: bool = False  # (experts, in, out) instead of (experts, out, in)
    interleaved: bool = False  # rows of gate and up by turns instead of one after the other

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
        both = stacks["gate_up_proj"]
        gate, up = (both[:, 0::2], both[:, 1::2]) if self.interleaved else both.chunk(2, dim=1)
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
        # a method of the whole module would hold on to its parameters
        bare = without_parameters(fused)
        if not self.gated:
            return bare.act_fn
        return getattr(bare, "_apply_gate", None) or Gate(bare.act_fn)


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
    own = {
        name: value for name, value in fused.named_parameters() if not name.startswith(f"{NORM}.")
    }
    names = {name.removesuffix("_bias") for name in own}
    if names == {"weight"} and fused.weight.ndim == 3:
        yield ParallelLayout(ParallelLinear)
    if names == FlatLayout(RoutedExperts).tensors:
        yield FlatLayout(RoutedExperts, experts=fused.num_experts)
    for gated in (True, False):
        if names == FusedLayout(RoutedExperts, gated).tensors and own["down_proj"].ndim == 3:
            transposed, concatenated = (
                getattr(fused, "is_transposed", False),
                getattr(fused, "is_concatenated", True),
            )
            for module, other, turned in product(
                (RoutedExperts, SortedExperts), (False, True), (False, True)
            ):
                yield FusedLayout(module, gated, transposed ^ turned, not concatenated ^ other)


# --- choice of the storage ------------------------------------------------------------------------


def unfuse_experts(model: PreTrainedModel) -> PreTrainedModel:
    """Replace every module that stores several experts in one parameter, and return ``model``.

    Modules that are not replaced compute eagerly, because torch's grouped product refuses bfloat16
    rows that are not a multiple of 16 bytes wide.
    """
    model.set_experts_implementation("eager")
    known: dict[tuple[Any, ...], int | None] = {}
    for name, fused in list(model.named_modules()):
        layouts = list(layouts_for(fused))
        if not layouts:
            continue
        kind = (type(fused), tuple(value.shape for value in fused.parameters()))
        if kind not in known:
            known[kind] = matching_layout(fused)
        if (place := known[kind]) is not None:
            parent, _, child = name.rpartition(".")
            setattr(
                model.get_submodule(parent), child, layouts[place].module(fused, layouts[place])
            )
    return model


def matching_layout(fused: nn.Module) -> int | None:
    """Number of the first layout that reproduces the module's outputs on random input, or None."""
    small = scaled_down(fused)
    return next(
        (
            number
            for number, layout in enumerate(layouts_for(small))
            if is_reproduced(layout, small)
        ),
        None,
    )


@torch.no_grad()
def is_reproduced(layout: FusedLayout | ParallelLayout, small: nn.Module) -> bool:
    """Return True if the layout computes what ``small`` does, also if an expert gets no token."""
    # other shapes, arguments or attributes: another layout
    with suppress(RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        other = layout.module(small, layout)
        given = other.example(torch.Generator().manual_seed(1))
        due, found = small(*given), other(*given)
        largest = due.abs().max().item()
        return (
            due.numel() == found.numel()
            and (due.view_as(found) - found).abs().max().item() <= TOLERANCE * largest > 0
        )
    return False


def scaled_down(fused: nn.Module) -> nn.Module:
    """Copy with few random parameters, in float32 on the CPU; sizes shrink wherever parameters or
    attributes contain them.
    """
    tensors = [*fused.parameters(), *fused.buffers()]
    numbers = {
        value for module in fused.modules() for value in vars(module).values() if type(value) is int
    }
    smaller = smaller_sizes(
        {size for value in tensors for size in value.shape},
        numbers,
        getattr(fused, "num_experts", 0),
    )
    draw = torch.Generator().manual_seed(0)
    copies = {
        id(value): random_like(value, [smaller[size] for size in value.shape], draw)
        for value in tensors
    }
    config = getattr(fused, "config", None)
    small = copy.deepcopy(fused, copies | ({} if config is None else {id(config): config}))
    for module in small.modules():
        for name, value in list(vars(module).items()):
            if type(value) is int:
                setattr(module, name, smaller.get(value, value))
    return small.eval()


def smaller_sizes(sizes: set[int], numbers: set[int], experts: int) -> dict[int, int]:
    """Map old sizes to new ones, keeping ratios of two and of the number of experts."""
    smaller: dict[int, int] = {}
    for size in sorted(sizes | (numbers & {size // experts for size in sizes if experts})):
        smaller[size] = 2 * smaller[size // 2] if size % 2 == 0 and size // 2 in smaller else SMALL
    each = {
        size: size // experts
        for size in sizes
        if experts and size % experts == 0 and size // experts in numbers
    }
    return smaller | {
        size: smaller[part] * smaller.get(experts, experts)
        for size, part in each.items()
        if size not in numbers
    }


def random_like(value: torch.Tensor, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """Random values that are large enough for clamped activations to clamp."""
    tensor = 2 * torch.randn(shape, generator=generator)
    return nn.Parameter(tensor, requires_grad=False) if isinstance(value, nn.Parameter) else tensor


# --- routing in a model ---------------------------------------------------------------------------


@dataclass(frozen=True)
class RoutedLayer:
    """Position of a layer whose tokens are routed to its expert."""

    path: str  # of the module that holds all experts
    expert: str  # number
    projection: str  # of the layer inside the expert, "" where an expert is a single layer

    @property
    def place(self) -> tuple[str, str]:
        """Key shared by all experts of a module."""
        return self.path, self.projection


def routed_layers(model: nn.Module, names: Iterable[str]) -> dict[str, RoutedLayer]:
    """Experts' layers among ``names``."""
    paths, found = (
        {path for path, module in model.named_modules() if isinstance(module, ROUTING)},
        {},
    )
    for name in names:
        parent, _, last = name.rpartition(".")
        path, _, expert = parent.rpartition(".")
        if path in paths:
            found[name] = RoutedLayer(path, expert, last)
        elif parent in paths:
            found[name] = RoutedLayer(parent, last, "")
    return found


def expert_paths(model: nn.Module) -> list[str]:
    """Paths of all experts, such as ``model.layers.0.mlp.experts.3``."""
    return [name for name, module in model.named_modules() if isinstance(module, Expert)]


def split_experts(model: nn.Module, plain: Stacks) -> tuple[Stacks, Stacks]:
    """Split stacked expert weights of a file into layers, (out, in) each; return them with all
    other tensors and the experts' biases.
    """
    weights, left = {}, dict(plain)
    for path, module in model.named_modules():
        if isinstance(module, ROUTING):
            prefix = f"{path}."
            places = {
                f"{prefix}{tensor}{ending}": f"{tensor}{ending}"
                for tensor in module.layout.tensors
                for ending in ("", "_bias")
            }
            own = {tensor: plain[name] for name, tensor in places.items() if name in plain}
            if module.layout.tensors <= own.keys():
                stacks, biases = module.layout.stacks(own)
                for name in places:
                    left.pop(name, None)
                weights |= {
                    layer_name(prefix, number, name): value
                    for name, stack in stacks.items()
                    for number, value in enumerate(stack)
                }
                left |= {
                    f"{layer_name(prefix, number, name)}.bias": value
                    for name, stack in biases.items()
                    for number, value in enumerate(stack)
                }
    return weights, left


def layer_name(prefix: str, number: int, projection: str) -> str:
    return f"{prefix}{number}.{projection}".rstrip(".")


def token_shares(model: nn.Module) -> dict[str, float]:
    """Mean share of all tokens that an expert receives, by the path of the routing module; 1 if the
    number of experts per token is unknown.
    """
    shares = {}
    for path, module in model.named_modules():
        if isinstance(module, ROUTING):
            above = [
                model.get_submodule(parent)
                for parent in (path.rpartition(".")[0], path.rpartition(".")[0].rpartition(".")[0])
            ]
            places = [*above, *(child for parent in above for child in parent.children())]
            chosen = next(
                (place.top_k for place in places if isinstance(getattr(place, "top_k", None), int)),
                module.count,
            )
            shares[path] = min(1.0, chosen / module.count)
    return shares


def router_names(model: nn.Module) -> set[str]:
    """Linear layers that choose experts or weight a shared expert: they are next to the experts and
    have one output per expert, or one in total.
    """
    found: set[str] = set()
    for path, module in model.named_modules():
        experts = [child for child in module.children() if isinstance(child, ROUTING)]
        other_children = (
            []
            if not experts
            else [
                (name, child)
                for name, child in module.named_children()
                if not isinstance(child, ROUTING)
            ]
        )
        for name, child in other_children:
            linears = [
                (inner, each)
                for inner, each in child.named_modules(prefix=f"{path}.{name}")
                if hasattr(each, "in_features")
            ]
            if len(linears) == 1 and linears[0][1].out_features in (1, experts[0].count):
                found.add(linears[0][0])
    return found
