"""Expert layers of a model, the tokens they receive, and their routers."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from engine.models.experts import ROUTING, Expert, Stacks


@dataclass(frozen=True)
class RoutedLayer:
    """Location of a layer in its expert and module."""

    path: str  # path of the module that holds all experts
    expert: str  # number
    projection: str  # layer inside the expert, "" if an expert is a single layer

    @property
    def stack(self) -> tuple[str, str]:
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
    weights, other_tensors = {}, dict(plain)
    for path, module in model.named_modules():
        if isinstance(module, ROUTING):
            prefix = f"{path}."
            tensor_by_name = {
                f"{prefix}{tensor}{ending}": f"{tensor}{ending}"
                for tensor in module.layout.tensors
                for ending in ("", "_bias")
            }
            own_tensors = {
                tensor: plain[name] for name, tensor in tensor_by_name.items() if name in plain
            }
            if module.layout.tensors <= own_tensors.keys():
                stacks, biases = module.layout.stacks(own_tensors)
                for name in tensor_by_name:
                    other_tensors.pop(name, None)
                weights |= {
                    layer_name(prefix, number, name): value
                    for name, stack in stacks.items()
                    for number, value in enumerate(stack)
                }
                other_tensors |= {
                    f"{layer_name(prefix, number, name)}.bias": value
                    for name, stack in biases.items()
                    for number, value in enumerate(stack)
                }
    return weights, other_tensors


def layer_name(prefix: str, number: int, projection: str) -> str:
    return f"{prefix}{number}.{projection}".rstrip(".")


def token_shares(model: nn.Module) -> dict[str, float]:
    """Mean share of all tokens that an expert receives, by the path of the routing module; 1 if the
    number of experts per token is unknown.
    """
    shares = {}
    for path, module in model.named_modules():
        if isinstance(module, ROUTING):
            parents = [
                model.get_submodule(parent)
                for parent in (path.rpartition(".")[0], path.rpartition(".")[0].rpartition(".")[0])
            ]
            candidates = [*parents, *(child for parent in parents for child in parent.children())]
            experts_per_token = next(
                (
                    candidate.top_k
                    for candidate in candidates
                    if isinstance(getattr(candidate, "top_k", None), int)
                ),
                module.count,
            )
            shares[path] = min(1.0, experts_per_token / module.count)
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
                (inner, module_inside)
                for inner, module_inside in child.named_modules(prefix=f"{path}.{name}")
                if hasattr(module_inside, "in_features")
            ]
            if len(linears) == 1 and linears[0][1].out_features in (1, experts[0].count):
                found.add(linears[0][0])
    return found
