"""Traces of a model between its layers."""

import pytest
import torch

from engine.models.layers import layers_of
from engine.models.loaded_model import load_model
from engine.models.loading import resolve_model
from engine.techniques.pruning.tracing import (
    LOW,
    identity_forward,
    outline_model,
    random_outputs,
    tensors_match,
    trace_layers,
)
from tests.cases import for_each
from tests.matrices import normal
from tests.tiny import tiny

CPU = torch.device("cpu")


def outline(folder) -> torch.nn.Module:
    source = resolve_model(str(folder))
    original = load_model(source, CPU, torch.float32)
    stored = {
        layer.name: original.model.get_submodule(layer.name).stored for layer in original.layers
    }
    return outline_model(source, stored, original.plain)


@for_each("architecture", ["llama", "gpt2", "bert", "resnet"])
def test_every_layer_runs_once_with_outputs_of_its_own_width(architecture, tmp_path):
    model = outline(tiny(architecture, tmp_path / architecture))
    layers = {layer.name: layer for layer in layers_of(model)}
    trace = trace_layers(model, random_outputs())
    assert trace.outputs.keys() == trace.inputs.keys() and len(trace.outputs) > len(layers) / 2
    for name, calls in trace.outputs.items():
        layer = layers[name]
        width = layer.shape[1] if layer.kind == "embedding" else layer.shape[0]
        assert [each.shape[-1] for each in calls] == [width]


def test_what_a_layer_reads_depends_on_the_layers_before_it_alone(tmp_path):
    model = outline(tiny("llama", tmp_path / "llama"))
    trace = trace_layers(model, random_outputs())
    down, up, query = (
        f"model.layers.0.{name}" for name in ("mlp.down_proj", "mlp.up_proj", "self_attn.q_proj")
    )

    def depends(reader: str, source: str) -> bool:
        [read], [made] = trace.inputs[reader], trace.outputs[source]
        [slope] = torch.autograd.grad(read.sum(), made, retain_graph=True, allow_unused=True)
        return slope is not None and bool(slope.any())

    assert depends(down, up) and not depends(up, down) and not depends(query, up)


def test_traces_are_the_same_in_every_run():
    one, other = random_outputs(), random_outputs()
    for shape in ((2, 3), (4,)):
        assert torch.equal(one("a", 0, torch.Size(shape)), other("b", 1, torch.Size(shape)))
    assert (one("a", 0, torch.Size([50])) >= LOW).all()


def test_an_idle_block_returns_its_input_in_the_form_of_its_output():
    states = normal(2, 3)
    assert identity_forward(lambda x: x + 1)(states) is states
    returned = identity_forward(lambda hidden_states: (hidden_states + 1, "cache"))(
        hidden_states=states
    )
    assert returned[0] is states and returned[1] == "cache"


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_tensors_match_up_to_rounding_alone(scale):
    one = scale * (normal(4, 5).abs() + 1)
    assert tensors_match(one, one * (1 + 1e-6)) and not tensors_match(one, one * (1 + 1e-3))
    assert not tensors_match(one, one[:3])
