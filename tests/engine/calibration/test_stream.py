"""Calibration data on its way through a model, and scales that can be hidden in it."""

import pytest
import torch

from engine.calibration import CalibrationStream, InputStats, scale_folds
from engine.calibration.folding import preserve_weights
from engine.errors import PlainError
from engine.models.layers import Layer, blocks_of
from engine.models.loaded_model import LoadedModel, load_model
from engine.models.loading import resolve_model
from engine.models.packed_modules import UnpackingLinear
from tests.cases import for_each
from tests.tiny import ARCHITECTURES, tiny

CPU = torch.device("cpu")
each_architecture = for_each("architecture", ARCHITECTURES)
# by the ends of their names: what each architecture lets a scale be hidden in, one block's worth
FOLDS = {
    "llama": {
        "input_layernorm": {"q_proj", "k_proj", "v_proj"},
        "v_proj": {"o_proj"},
        "post_attention_layernorm": {"gate_proj", "up_proj"},
        "up_proj": {"down_proj"},
    },
    # behind a GELU, or in the middle of a fused layer, no scale can be hidden
    "gpt2": {"ln_1": {"c_attn"}, "ln_2": {"c_fc"}},
    "opt": {
        "self_attn_layer_norm": {"q_proj", "k_proj", "v_proj"},
        "v_proj": {"out_proj"},
        "final_layer_norm": {"fc1"},
        "fc1": {"fc2"},
    },
    "bert": {"value": {"dense"}},  # its norms feed the residual sum too
    "resnet": {},
}
FOLDS |= {"llama-tied": FOLDS["llama"], "qwen2": FOLDS["llama"]}


def batches_for(architecture: str, count: int = 3) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    if architecture == "resnet":
        return [{"pixel_values": torch.randn(2, 1, 16, 16, generator=draw)} for _ in range(count)]
    return [
        {"input_ids": torch.randint(4, 200, (2, 12 + index), generator=draw)}
        for index in range(count)
    ]


def subject_of(architecture: str, folder) -> LoadedModel:
    return load_model(resolve_model(str(tiny(architecture, folder))), CPU, torch.float32)


def stream_of(architecture: str, subject: LoadedModel) -> CalibrationStream:
    return CalibrationStream(subject.model, batches_for(architecture), CPU)


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
    stream, expected = stream_of(architecture, subject), {}
    for block in blocks_of(subject.layers):
        names = linear_names(subject, block)
        expected |= inputs_of(subject, names, batches_for(architecture))
        seen = stream.collect_stats(block[0].block, names, wants_gram=True)
        for name in names:
            torch.testing.assert_close(
                seen[name].gram, expected[name].T @ expected[name], rtol=1e-4, atol=1e-4
            )
            torch.testing.assert_close(seen[name].abs_mean, expected[name].abs().mean(0))
            assert seen[name].count == len(expected[name])
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
        block, names, events = layers[0].block, [layer.name for layer in layers], []
        seen = twice.collect_stats(block, names, True)
        assert once.in_step_fits(block, names)
        once.run_in_step(
            block,
            names,
            True,
            lambda name, each, events=events: events.append((name, each.gram, each.count)),
        )
        assert {name for name, *_ in events} == set(seen) and len(events) == len(seen)
        for name, gram, count in events:
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


def test_a_second_look_at_a_block_sees_the_same(tmp_path):
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


@for_each("architecture", FOLDS)
def test_scales_are_hidden_where_each_architecture_allows_it(architecture, tmp_path):
    subject = subject_of(architecture, tmp_path)
    stream, block = (
        stream_of(architecture, subject),
        next(block for block in blocks_of(subject.layers) if block[0].block),
    )
    names = [layer.name for layer in block]
    folds = scale_folds(
        stream, block[0].block, stream.collect_stats(block[0].block, names, True), names
    )
    ends = {
        fold.source.rpartition(".")[2]: {sink.rpartition(".")[2] for sink in fold.sinks}
        for fold in folds
    }
    assert ends == FOLDS[architecture]


@for_each("architecture", [name for name, folds in FOLDS.items() if folds])
def test_hidden_scales_leave_the_logits_as_they_were(architecture, tmp_path):
    subject = subject_of(architecture, tmp_path)
    stream, batch = stream_of(architecture, subject), batches_for(architecture)[0]
    with torch.no_grad():
        before = subject.model(**batch).logits
    for block in blocks_of(subject.layers):
        if block[0].block in stream.chain:
            names = [layer.name for layer in block]
            seen = stream.collect_stats(block[0].block, names, True)
            for fold in scale_folds(stream, block[0].block, seen, names):
                width = subject.model.get_submodule(fold.sinks[0]).stored.shape[1]
                fold.apply(
                    subject.model,
                    fold.repeated_scales(
                        torch.rand(width, generator=torch.Generator().manual_seed(1)) * 5 + 0.2
                    ),
                )
            stream.advance(block[0].block)
    with torch.no_grad():
        torch.testing.assert_close(subject.model(**batch).logits, before, rtol=1e-4, atol=1e-4)


def test_undone_gives_every_weight_back(tmp_path):
    subject = subject_of("llama", tmp_path)
    names = ["model.layers.0.input_layernorm", "model.layers.0.self_attn.q_proj"]
    before = [subject.model.get_submodule(name).weight.clone() for name in names]
    with preserve_weights(subject.model, names):
        subject.model.get_submodule(names[0]).weight.data = before[0] * 2
        subject.model.get_submodule(names[1]).stored = type(
            subject.model.get_submodule(names[1]).stored
        )(before[1].shape, before[1] * 2)
    assert all(
        torch.equal(subject.model.get_submodule(name).weight, value)
        for name, value in zip(names, before, strict=True)
    )


def test_the_gram_matrix_in_two_halves_is_the_same():
    rows = torch.randn(64, 37, generator=torch.Generator().manual_seed(0))
    whole, halves = InputStats(37, CPU), InputStats(37, CPU)
    whole.add(rows)
    halves.add(rows[:20])
    halves.add(rows[20:])
    torch.testing.assert_close(whole.gram, halves.gram)
    torch.testing.assert_close(whole.gram, rows.T @ rows)


def test_scaled_inputs_are_seen_scaled():
    rows, scales = torch.randn(64, 12), torch.rand(12) + 0.5
    for wants_gram in (True, False):
        one, two = InputStats(12, CPU, wants_gram), InputStats(12, CPU, wants_gram)
        one.add(rows)
        two.add(rows / scales)
        other = one.divided_by(scales)
        for name in ("gram", "abs_mean", "abs_max"):
            torch.testing.assert_close(getattr(other, name), getattr(two, name))
        torch.testing.assert_close(other.sample(), two.sample())
        assert [pytest.approx(pair) for pair in other.extremes] == two.extremes


def test_inputs_that_are_no_numbers_are_refused_with_the_layers_name():
    seen = InputStats(4, CPU)
    with pytest.raises(PlainError, match="No calibration data reached some.layer"):
        seen.check_usable("some.layer")
    seen.add(torch.tensor([[1.0, float("nan"), 0, 0]]))
    with pytest.raises(PlainError, match="some.layer become NaN"):
        seen.check_usable("some.layer")
