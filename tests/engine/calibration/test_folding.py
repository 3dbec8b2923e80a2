import torch

from engine.calibration import Fold, scale_folds
from engine.calibration.folding import preserve_weights
from engine.models.layers import blocks_of
from tests.cases import for_each
from tests.streams import batches_for, stream_of, subject_of


def test_scales_of_repeated_heads_are_equal():
    fold = Fold("v", ("o",), repeats=2, head=3)
    tied = fold.repeated_scales(torch.arange(1.0, 13)).view(2, 2, 3)
    assert torch.equal(tied[:, 0], tied[:, 1]) and torch.equal(
        fold.source_scales(tied.flatten()), tied[:, 0].flatten()
    )
    torch.testing.assert_close(
        tied[0, 0], (torch.tensor([1.0, 2, 3]) * torch.tensor([4.0, 5, 6])).sqrt()
    )


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
