"""Each expert is calibrated on the tokens routed to it."""

import pytest
import torch
from torch import nn

from engine.calibration import CalibrationStream, scale_folds
from engine.calibration.activation_stats import InputStats, merged_stats
from engine.calibration.folding import preserve_weights
from engine.calibration.routing import ExpertRouting, InputMagnitude, add_uncorrelated_inputs
from engine.models.layers import blocks_of
from engine.models.loaded_model import LoadedModel, load_model
from engine.models.loading import resolve_model
from tests.cases import for_each
from tests.experts import (
    EXPERTS,
    build_model,
    save_model,
    save_model_without_tokens,
    without_tokens,
)

CPU = torch.device("cpu")
EXPERT = "model.layers.{}.mlp.experts.{}.{}"


def batches_of(sizes: list[tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(4, 200, size, generator=draw)} for size in sizes]


MANY, FEW = batches_of([(4, 60)] * 4), batches_of([(1, 2), (1, 3), (1, 2), (2, 3), (1, 4)])


def subject_of(folder) -> LoadedModel:
    return load_model(resolve_model(str(folder)), CPU, torch.float32)


def routed_inputs(
    model: nn.Module, block: int, batches: list
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Tokens routed to each expert of transformers' Mixtral, and the inputs of its last layer."""
    experts, caught = model.model.layers[block].mlp.experts, []
    hook = experts.register_forward_pre_hook(lambda module, args: caught.append(args[:2]))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    hook.remove()
    found = {}
    for expert in range(EXPERTS):
        rows = torch.cat([states[(index == expert).any(-1)] for states, index in caught])
        gate, up = (rows @ experts.gate_up_proj[expert].T).chunk(2, -1)
        found[expert] = rows, nn.functional.silu(gate) * up
    return found


@pytest.mark.parametrize("wants_gram", [True, False])
def test_an_experts_statistics_are_of_the_tokens_routed_to_it(wants_gram, tmp_path):
    subject = subject_of(save_model("mixtral", tmp_path))
    due = routed_inputs(build_model("mixtral"), 1, MANY)
    stream, blocks = CalibrationStream(subject.model, MANY, CPU), blocks_of(subject.layers)
    names = {block[0].block: [layer.name for layer in block] for block in blocks}
    stream.collect_stats("model.layers.0", names["model.layers.0"], wants_gram)
    stream.advance("model.layers.0")
    seen = stream.collect_stats("model.layers.1", names["model.layers.1"], wants_gram)
    for expert, (rows, inner) in due.items():
        for projection, vectors in (("gate_proj", rows), ("up_proj", rows), ("down_proj", inner)):
            stats = seen[EXPERT.format(1, expert, projection)]
            assert stats.count == len(vectors) and not stats.warnings
            torch.testing.assert_close(
                stats.rms, vectors.square().mean(0).sqrt(), rtol=1e-3, atol=1e-5
            )
            if wants_gram:
                torch.testing.assert_close(stats.gram, vectors.T @ vectors, rtol=1e-3, atol=1e-3)


@for_each("name", ["mixtral", "qwen2-moe", "deepseek-v3", "jetmoe", "llama4"])
@for_each("batches", [MANY, FEW], ids=["many", "few"])
def test_batches_in_step_see_what_each_sees_alone(name, batches, tmp_path):
    """Batches that reach different experts wait at the layers that all reach; without changes, the
    result is the same as without waiting.
    """
    folder = save_model(name, tmp_path)
    one, other = (CalibrationStream(subject_of(folder).model, batches, CPU) for _ in range(2))
    assert one.chain
    for block in blocks_of(subject_of(folder).layers):
        names = [layer.name for layer in block if layer.kind == "linear" and not layer.routes]
        if block[0].block not in one.chain:
            continue
        due, found = one.collect_stats(block[0].block, names, True), {}
        unreached = other.run_in_step(block[0].block, names, True, found.__setitem__)
        one.advance(block[0].block)
        assert (
            found.keys() | unreached.keys() == due.keys() == set(names)
            and not found.keys() & unreached.keys()
        )
        for layer, seen in due.items():
            stats = found.get(layer) or unreached[layer]
            assert (stats.count, stats.missing) == (seen.count, seen.missing)
            torch.testing.assert_close(stats.gram, seen.gram, rtol=1e-3, atol=1e-3)
        if block[0].block != one.chain[-1]:
            torch.testing.assert_close(other.waiting, one.waiting, rtol=1e-4, atol=1e-5)


def test_an_expert_without_tokens_gets_uncorrelated_inputs_as_strong_as_the_others(tmp_path):
    subject = subject_of(save_model_without_tokens(tmp_path))
    names = [layer.name for layer in subject.layers if layer.block == "model.layers.0"]
    seen = CalibrationStream(subject.model, MANY, CPU).collect_stats("model.layers.0", names, True)
    lonely = without_tokens(build_model("mixtral"))
    gate, up, down = (
        seen[EXPERT.format(0, lonely, name)] for name in ("gate_proj", "up_proj", "down_proj")
    )
    assert gate is up and gate.missing == gate.count == gate.width == 48 and down.count == 36
    assert (
        torch.equal(gate.gram, gate.gram[0, 0] * torch.eye(48))
        and "no calibration token was routed to it" in gate.warnings[0]
    )
    others = [
        seen[EXPERT.format(0, expert, "gate_proj")] for expert in range(EXPERTS) if expert != lonely
    ]
    due = (
        sum(each.square_sum.sum() for each in others)
        / sum(each.count * each.width for each in others)
    ).sqrt()
    torch.testing.assert_close(gate.rms, due.expand(48))


def test_replacements_of_a_single_expert_are_as_strong_as_the_others(tmp_path):
    """A question about one layer replaces a single expert."""
    subject = subject_of(save_model_without_tokens(tmp_path))
    name = EXPERT.format(1, 2, "down_proj")
    names = [layer.name for layer in subject.layers]
    alone = CalibrationStream(subject.model, MANY, CPU).collect_stats("", [name], False)[name]
    among = CalibrationStream(subject.model, MANY, CPU).collect_stats("", names, False)[name]
    torch.testing.assert_close(alone.rms, among.rms)
    assert alone.extremes == among.extremes and alone.missing == alone.count


def test_missing_tokens_are_added_up_to_the_number_of_inputs():
    draw = torch.Generator().manual_seed(0)
    rows = 3 * torch.randn(5, 8, generator=draw)
    seen = InputStats(8, CPU)
    seen.add(rows)
    routing = ExpertRouting({})
    routing.fill_missing_tokens("another layer", seen)
    assert torch.allclose(seen.gram, rows.T @ rows) and not seen.warnings
    add_uncorrelated_inputs(seen, InputMagnitude.from_stats(seen), "a note")
    torch.testing.assert_close(seen.gram, rows.T @ rows + 3 * rows.square().mean() * torch.eye(8))
    assert seen.count == 8 and seen.missing == 3 and seen.warnings == ["a note"]
    # as strong as before
    assert seen.gram.diagonal().mean() / seen.count == pytest.approx(rows.square().mean().item())


def test_experts_that_share_a_scale_are_taken_together():
    draw = torch.Generator().manual_seed(0)
    parts, rows = [], [torch.randn(count, 6, generator=draw) for count in (10, 7)]
    for each in rows:
        parts.append(InputStats(6, CPU))
        parts[-1].add(each)
    empty = InputStats(6, CPU)
    add_uncorrelated_inputs(empty, InputMagnitude(6, 1.0, 1e6, -1.0, 1.0), "")
    whole, every = merged_stats([parts[0], parts[0], empty, parts[1]]), torch.cat(rows)
    torch.testing.assert_close(whole.gram, every.T @ every)
    torch.testing.assert_close(whole.abs_mean, every.abs().mean(0))
    assert whole.count == 17 and merged_stats([empty]) is empty


@for_each(
    ("name", "into", "inside"),
    [
        ("mixtral", {"gate"}, True),
        ("qwen2-moe", {"gate", "shared_expert_gate"}, True),
        ("deepseek-v3", {"gate"}, True),
        ("jetmoe", {"router.layer"}, False),
        # its activation adds one, so no scale can be folded inside an expert
        ("gpt-oss", {"router"}, False),
    ],
)
def test_scales_are_folded_into_everything_that_reads_the_norm(name, into, inside, tmp_path):
    subject = subject_of(save_model(name, tmp_path))
    stream, block = CalibrationStream(subject.model, MANY[:2], CPU), blocks_of(subject.layers)[2]
    names = [layer.name for layer in block if not layer.routes]
    folds = scale_folds(
        stream, block[0].block, stream.collect_stats(block[0].block, names, True), names
    )
    stem = f"{block[0].block}.mlp"
    before = next(fold for fold in folds if fold.companions and fold.companions[0].startswith(stem))
    assert (
        before.from_norm and {each.removeprefix(f"{stem}.") for each in before.companions} == into
    )
    firsts = {
        each
        for each in names
        if each.startswith(stem)
        and not each.endswith(("down_proj",))
        and "output_linear" not in each
    }
    assert set(before.sinks) == firsts
    behind = [
        fold
        for fold in folds
        if fold.sinks[0].endswith("down_proj") and ".experts." in fold.sinks[0]
    ]
    assert len(behind) == (EXPERTS if inside else 0) and all(
        fold.source == fold.sinks[0].replace("down", "up") for fold in behind
    )
    due = stream.run_block(block[0].block, 0)
    scales = torch.rand(48, generator=torch.Generator().manual_seed(1)) + 0.5
    with preserve_weights(stream.model, [before.source, *before.sinks, *before.companions]):
        before.apply(stream.model, scales)
        torch.testing.assert_close(stream.run_block(block[0].block, 0), due, rtol=1e-3, atol=1e-4)
    assert torch.equal(stream.run_block(block[0].block, 0), due)
