"""Calibration data on its way through a model."""

import torch

from engine.models.layers import Layer, blocks_of
from engine.models.loaded_model import LoadedModel
from engine.models.packed_modules import UnpackingLinear
from tests.cases import for_each
from tests.streams import batches_for, stream_of, subject_of
from tests.tiny import ARCHITECTURES

each_architecture = for_each("architecture", ARCHITECTURES)


def inputs_of(subject: LoadedModel, names: list[str], batches: list) -> dict[str, torch.Tensor]:
    """Inputs of linear layers, collected by plain hooks on the whole model."""
    kept = {name: [] for name in names}
    hooks = [
        subject.model.get_submodule(name).register_forward_pre_hook(
            lambda m, args, name=name: kept[name].append(args[0].flatten(0, -2))
        )
        for name in names
    ]
    with torch.no_grad():
        for batch in batches:
            subject.model(**batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(rows) for name, rows in kept.items()}


def linear_names(subject: LoadedModel, layers: list[Layer]) -> list[str]:
    return [
        layer.name
        for layer in layers
        if isinstance(subject.model.get_submodule(layer.name), UnpackingLinear)
    ]


@each_architecture
def test_the_blocks_of_every_architecture_are_a_chain(architecture, tmp_path):
    subject = subject_of(architecture, tmp_path)
    assert stream_of(architecture, subject).chain == list(
        dict.fromkeys(layer.block for layer in subject.layers if layer.block)
    )


@each_architecture
def test_a_block_sees_what_the_whole_model_would_show_it(architecture, tmp_path):
    subject = subject_of(architecture, tmp_path)
    stream, due = stream_of(architecture, subject), {}
    for block in blocks_of(subject.layers):
        names = linear_names(subject, block)
        due |= inputs_of(subject, names, batches_for(architecture))
        seen = stream.collect_stats(block[0].block, names, wants_gram=True)
        for name in names:
            torch.testing.assert_close(
                seen[name].gram, due[name].T @ due[name], rtol=1e-4, atol=1e-4
            )
            torch.testing.assert_close(seen[name].abs_mean, due[name].abs().mean(0))
            assert seen[name].count == len(due[name])
        stream.advance(block[0].block)


def test_a_block_sees_what_compressed_blocks_before_it_make(tmp_path):
    subject = subject_of("llama", tmp_path)
    stream, blocks = (
        stream_of("llama", subject),
        [block for block in blocks_of(subject.layers) if block[0].block],
    )
    first = [layer.name for layer in blocks[0]]
    stream.collect_stats(blocks[0][0].block, first, wants_gram=True)
    module = subject.model.get_submodule(first[-1])
    module.stored = type(module.stored)(module.stored.shape, module.stored.to_dense() * 0.5)
    stream.advance(blocks[0][0].block)
    name = blocks[1][0].name
    rows = inputs_of(subject, [name], batches_for("llama"))[name]
    torch.testing.assert_close(
        stream.collect_stats(blocks[1][0].block, [name], True)[name].gram,
        rows.T @ rows,
        rtol=1e-4,
        atol=1e-4,
    )


@each_architecture
def test_in_step_layers_that_stay_as_they_are_see_the_same(architecture, tmp_path):
    subject = subject_of(architecture, tmp_path)
    twice, once = stream_of(architecture, subject), stream_of(architecture, subject)
    in_chain = [block for block in blocks_of(subject.layers) if block[0].block in once.chain]
    assert in_chain
    for layers in in_chain:
        block, names, told = layers[0].block, [layer.name for layer in layers], []
        seen = twice.collect_stats(block, names, True)
        assert once.in_step_fits(block, names)
        once.run_in_step(
            block,
            names,
            True,
            lambda name, each, told=told: told.append((name, each.gram, each.count)),
        )
        assert {name for name, *_ in told} == set(seen) and len(told) == len(seen)
        for name, gram, count in told:
            torch.testing.assert_close(gram, seen[name].gram)
            assert count == seen[name].count
        for stream in (twice, once):
            stream.advance(block)
        if block != once.chain[-1]:
            assert all(
                torch.equal(one, two) for one, two in zip(once.waiting, twice.waiting, strict=True)
            )


def test_in_step_a_layer_sees_what_those_before_it_have_become(tmp_path):
    subject = subject_of("llama", tmp_path)
    stream, layers = (
        stream_of("llama", subject),
        next(block for block in blocks_of(subject.layers) if block[0].block),
    )
    names, grams = [layer.name for layer in layers], {}

    def halve(name, seen):
        grams[name] = seen.gram.clone()
        module = subject.model.get_submodule(name)
        module.stored = type(module.stored)(module.stored.shape, module.stored.to_dense() * 0.5)
        module.unpacked = module.stored.to_dense()

    stream.run_in_step(layers[0].block, names, True, halve)
    stream.advance(layers[0].block)
    # nothing after a layer changes what it gets
    for name, rows in inputs_of(subject, names, batches_for("llama")).items():
        torch.testing.assert_close(grams[name], rows.T @ rows, rtol=1e-4, atol=1e-4)
    assert all(
        module.unpacked is None
        for module in subject.model.modules()
        if isinstance(module, UnpackingLinear)
    )


def test_too_much_to_hold_does_not_go_in_step(tmp_path, monkeypatch):
    subject = subject_of("llama", tmp_path)
    stream, layers = (
        stream_of("llama", subject),
        next(block for block in blocks_of(subject.layers) if block[0].block),
    )
    monkeypatch.setattr("engine.calibration.stream.IN_STEP_BYTES", 50_000)
    assert not stream.in_step_fits(layers[0].block, [layer.name for layer in layers])


def test_a_second_pass_over_a_block_gives_the_same_statistics(tmp_path):
    subject = subject_of("llama", tmp_path)
    stream, block = (
        stream_of("llama", subject),
        next(block for block in blocks_of(subject.layers) if block[0].block),
    )
    looks = [
        stream.collect_stats(block[0].block, [layer.name for layer in block], True)
        for _ in range(2)
    ]
    assert all(torch.equal(looks[0][layer.name].gram, looks[1][layer.name].gram) for layer in block)


def test_convolutions_are_seen_as_patches(tmp_path):
    subject = subject_of("resnet", tmp_path)
    name = "resnet.encoder.stages.1.layers.0.layer.0.convolution"
    kept = []
    module = subject.model.get_submodule(name)
    hook = module.register_forward_hook(lambda m, args, output: kept.append(output))
    seen = stream_of("resnet", subject).collect_stats("", [name], wants_gram=True)[name]
    hook.remove()
    # one more came from finding the chain
    outputs = torch.cat([each.flatten(2).mT.flatten(0, 1) for each in kept[-3:]])
    matrix = module.stored.to_dense()
    torch.testing.assert_close(
        (matrix @ seen.gram * matrix).sum(), outputs.square().sum(), rtol=1e-4, atol=1e-4
    )
