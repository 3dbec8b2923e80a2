"""Structures are found by computation instead of module names: fused and grouped attention, gated
layers, convolutions.
"""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.errors import PlainError
from engine.models.layers import selected_layers
from engine.models.loaded_model import load_model
from engine.models.loading import load_pretrained, resolve_model
from engine.pipeline.blockwise import run_step
from engine.step.pruning_plan import KeptIndices, TechniqueInput
from engine.step.run_context import RunContext
from engine.techniques.hooks import plan_removal, survey
from engine.techniques.pruning.blocks.config import Blocks
from engine.techniques.pruning.structured.config import Structured
from engine.techniques.pruning.structured.dependencies import Heads, Neurons, coupled_structures
from engine.techniques.pruning.structured.method import structure_groups
from engine.techniques.pruning.tracing import Difference, first_difference, with_shifted_tensors
from tests.answers import forecast
from tests.architectures import CLASSIFIERS, CONVOLUTIONAL, IMAGE_MODELS, WRITERS, save_random_model
from tests.cases import for_each
from tests.recipes import recipe_for

CPU = torch.device("cpu")
EVERY = WRITERS | CLASSIFIERS | IMAGE_MODELS | CONVOLUTIONAL
NEURONS, HEADS = (
    {"technique": "structured", "what": what, "share": share}
    for what, share in (("neurons", 0.25), ("heads", 0.5))
)
QUERIES = HEADS | {"together": "queries"}
NOT_NEURONS = {"convnextv2"}  # its global response norm mixes channels
# norms over all heads; no attention; heads in fixed fourths
NOT_HEADS = {"olmo2", "convnext", "convnextv2", "codegen"}
CASES = [(name, NEURONS) for name in EVERY if name not in NOT_NEURONS | CONVOLUTIONAL.keys()]
CASES += [
    (name, step)
    for name in EVERY
    if name not in NOT_HEADS | CONVOLUTIONAL.keys()
    for step in (HEADS, QUERIES)
]
each_case = for_each(
    ("architecture", "step"),
    CASES,
    ids=[f"{name}-{step['what']}-{len(step)}" for name, step in CASES],
)


def kind_of(architecture: str) -> str:
    """Kind of task in ``tests.recipes``."""
    return "llama" if architecture in WRITERS else "bert" if architecture in CLASSIFIERS else "vit"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders by architecture, each created once."""
    kept = {}

    def folder(architecture: str):
        if architecture not in kept:
            tokens = {"llama": "llama", "bert": "bert", "vit": ""}[kind_of(architecture)]
            kept[architecture] = save_random_model(
                EVERY[architecture], tmp_path_factory.mktemp(architecture) / "model", tokens
            )
        return kept[architecture]

    return folder


def inputs_for(architecture: str) -> dict[str, torch.Tensor]:
    if architecture in IMAGE_MODELS | CONVOLUTIONAL:
        return {
            "pixel_values": torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        }
    ids = torch.arange(4, 68).view(2, 32)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.inference_mode()
def logits_of(model: nn.Module, architecture: str) -> torch.Tensor:
    return model(**inputs_for(architecture)).logits


def subject_of(folder) -> TechniqueInput:
    original = load_model(resolve_model(str(folder)), CPU, torch.float32)
    return TechniqueInput(
        original, resolve_model(str(folder)), frozenset(layer.name for layer in original.layers)
    )


def prune(recipe, subject, out) -> tuple:
    """Prune to ``out`` and return the table of structures."""
    out.mkdir()
    targets = selected_layers(subject.original.layers, recipe.layers)
    done = run_step(RunContext(recipe, subject.folder), subject.original, targets, out)
    return done.rows, done.packed


def model_with_zeroed_inputs(folder, small) -> nn.Module:
    """Dense model whose layers read zeros in every column that the pruned model lacks."""
    model, hooked = load_pretrained(resolve_model(str(folder))), 0
    for layer in small.layers:
        before, after = (
            model.get_submodule(layer.name).weight,
            small.model.get_submodule(layer.name).stored.to_dense(),
        )
        if (
            layer.kind == "linear"
            and before.shape[0] == after.shape[0]
            and before.shape[1] > after.shape[1]
        ):
            kept = (before.T[:, None] == after.T[None]).all(-1).any(1)
            assert kept.sum() == after.shape[1]
            model.get_submodule(layer.name).register_forward_pre_hook(
                lambda _, args, kept=kept: (args[0] * kept, *args[1:])
            )
            hooked += 1
    assert hooked
    return model


@each_case
def test_a_pruned_model_computes_what_the_dense_one_does_without_those_structures(
    architecture, step, models, tmp_path
):
    folder = models(architecture)
    recipe, subject = (
        recipe_for(kind_of(architecture), folder, tmp_path / "data", step),
        subject_of(folder),
    )
    rows, packed = prune(recipe, subject, tmp_path / "saved")
    small, dense = (
        load_model(resolve_model(str(tmp_path / "saved")), CPU, torch.float32),
        load_pretrained(subject.folder),
    )
    due = logits_of(model_with_zeroed_inputs(folder, small), architecture)
    torch.testing.assert_close(logits_of(small.model, architecture), due, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits_of(dense, architecture), due, atol=1e-6)
    assert any(not row.kept for row in rows.structures)
    written = sum(file.stat().st_size for file in (tmp_path / "saved").glob("*.safetensors"))
    assert forecast(recipe).size_bytes == written == packed.size_bytes


@pytest.mark.parametrize("architecture", CONVOLUTIONAL)
def test_without_channels_a_network_computes_what_it_does_where_they_are_silent(
    architecture, models, tmp_path
):
    folder, step = (
        models(architecture),
        {"technique": "structured", "what": "channels", "share": 0.25, "score": "l2"},
    )
    recipe, subject = recipe_for("vit", folder, tmp_path / "data", step), subject_of(folder)
    _, packed = prune(recipe, subject, tmp_path / "saved")
    small, dense = (
        load_model(resolve_model(str(tmp_path / "saved")), CPU, torch.float32),
        load_pretrained(subject.folder),
    )
    cuts = plan_removal(Structured(what="channels", share=0.25, score="l2"), subject).kept_indices
    for layer in subject.original.layers:
        cut = cuts.get(layer.name)
        if cut and cut.columns is not None:
            area = torch.Size(layer.shape[2:]).numel()
            kept = (
                torch.isin(torch.arange(layer.shape[1]), cut.columns // area)
                .float()
                .view(-1, *[1] * (2 if layer.kind == "conv2d" else 0))
            )
            dense.get_submodule(layer.name).register_forward_pre_hook(
                lambda _, args, kept=kept: (args[0] * kept,)
            )
    torch.testing.assert_close(
        logits_of(small.model, architecture), logits_of(dense, architecture), rtol=1e-4, atol=1e-5
    )
    assert forecast(recipe).size_bytes == packed.size_bytes


def test_depthwise_convolutions_lose_the_channels_that_they_compute(models):
    """The inner channels of MobileNet's blocks pass through them."""
    subject = subject_of(models("mobilenetv2"))
    small = plan_removal(Structured(what="channels", share=0.25, score="l2"), subject)
    inner = [layer for layer in subject.original.layers if layer.groups > 1]
    assert inner and all(
        small.shape(layer) == (round(0.75 * layer.shape[0]), 1, 3, 3) for layer in inner
    )


@pytest.fixture(autouse=True)
def sizes_alone(bytes_alone):
    """Restrict forecasts to sizes."""


@for_each(
    ("architecture", "neurons", "groups", "each"),
    [
        ("gpt-neox", 172, 4, 1),
        ("phi3", 172, 2, 2),
        ("bloom", 192, 4, 1),
        ("gptj", 172, 4, 1),
        ("gpt-bigcode", 172, 1, 4),
        ("modernbert", 172, 4, 1),
    ],
)
def test_fused_layers_are_split(architecture, neurons, groups, each, models):
    found = coupled_structures(subject_of(models(architecture)))
    assert [len(one.sources[0].rows) for one in found if isinstance(one, Neurons)] == [neurons] * 2
    assert [tuple(one.columns.shape) for one in found if isinstance(one, Heads)] == [
        (groups, each, 12)
    ] * 2


def test_rows_of_interleaved_queries_keys_and_values_are_those_of_the_model(models):
    """GPT-NeoX stores queries, keys and values per head; Phi-3 stores all queries, then all keys,
    then all values.
    """
    neox = next(
        one for one in coupled_structures(subject_of(models("gpt-neox"))) if isinstance(one, Heads)
    )
    rows = (
        torch.cat([source.rows.flatten(1) for source in (*neox.queries, *neox.shared)], 1)
        .sort(1)
        .values
    )
    assert torch.equal(rows, torch.arange(144).view(4, 36))
    phi = next(
        one for one in coupled_structures(subject_of(models("phi3"))) if isinstance(one, Heads)
    )
    assert torch.equal(phi.queries[0].rows, torch.arange(48).view(4, 12))
    assert torch.equal(
        phi.shared[0].rows,
        torch.cat([torch.arange(48, 72).view(2, 12), torch.arange(72, 96).view(2, 12)], 1),
    )


def test_both_halves_of_a_gated_layer_go_together(models):
    phi = next(
        one for one in coupled_structures(subject_of(models("phi3"))) if isinstance(one, Neurons)
    )
    assert torch.equal(
        phi.sources[0].rows, torch.stack([torch.arange(172), torch.arange(172, 344)], 1)
    )


@pytest.mark.parametrize(
    ("architecture", "what"), [("convnextv2", "neurons"), ("olmo2", "heads"), ("convnext", "heads")]
)
def test_structures_that_a_norm_mixes_or_that_are_not_there_are_refused(architecture, what, models):
    with pytest.raises(
        PlainError, match=rf"No {what} were found in .* that could be removed without changing"
    ):
        structure_groups(Structured(what=what), subject_of(models(architecture)))


@pytest.mark.parametrize("architecture", ["codegen"])
def test_a_model_that_does_not_compute_with_fewer_heads_is_refused(architecture, models):
    """CodeGen splits its heads into four parts of equal size, whatever their number."""
    with pytest.raises(
        PlainError,
        match=r"cannot be removed: this architecture does not compute with fewer of them",
    ):
        plan_removal(Structured(what="heads", share=0.5), subject_of(models(architecture)))


def test_a_wrong_removal_is_detected(models):
    subject = subject_of(models("gpt-neox"))
    small = plan_removal(Structured(share=0.5), subject)
    assert not first_difference(probe := with_shifted_tensors(subject), small)
    name = "gpt_neox.layers.1.mlp.dense_4h_to_h"
    other = torch.arange(172)[~torch.isin(torch.arange(172), small.kept_indices[name].columns)]
    wrong = replace(small, kept_indices=small.kept_indices | {name: KeptIndices(columns=other)})
    assert first_difference(probe, wrong) == Difference(layer=name)


def test_a_block_that_others_depend_on_is_kept(models):
    """ModernBERT's first block has no norm before its attention, so no other block can be first."""
    subject = subject_of(models("modernbert"))
    first, second = "model.layers.0", "model.layers.1"
    assert plan_removal(Blocks(count=1), subject, {first: 0.1, second: 0.2}).removed_blocks == (
        second,
    )
    every = frozenset(layer.name for layer in subject.original.layers)
    only_first = replace(
        subject, targets=frozenset(name for name in every if not name.startswith(f"{second}."))
    )
    with pytest.raises(
        PlainError, match=r"Only 0 of 2 blocks .* because others depend on model.layers.0"
    ):
        plan_removal(Blocks(count=1), only_first, {first: 0.1, second: 0.2})


@for_each(
    ("architecture", "step", "fields"),
    [
        ("gpt-neox", NEURONS, {"intermediate_size": 129}),
        ("phi3", NEURONS, {"intermediate_size": 129}),
        ("gptj", NEURONS, {"n_inner": 129}),
        ("phi3", HEADS, {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 12}),
        ("modernbert", NEURONS, {"intermediate_size": 129}),
    ],
)
def test_where_all_layers_are_alike_config_json_says_their_shape(
    architecture, step, fields, models, tmp_path
):
    recipe, subject = (
        recipe_for(kind_of(architecture), models(architecture), tmp_path / "data", step),
        subject_of(models(architecture)),
    )
    prune(recipe, subject, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text()).items() >= fields.items()


def test_generation_is_the_same_with_and_without_a_cache(models, tmp_path):
    for architecture, step in (
        ("gpt-neox", HEADS),
        ("bloom", HEADS),
        ("phi3", QUERIES),
        ("gpt-bigcode", HEADS),
    ):
        recipe, subject = (
            recipe_for("llama", models(architecture), tmp_path / "data", step),
            subject_of(models(architecture)),
        )
        prune(recipe, subject, out := tmp_path / architecture)
        model = load_model(resolve_model(str(out)), CPU, torch.float32).model
        asked = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        with torch.inference_mode():
            one, other = (
                model.generate(torch.arange(4, 20)[None], use_cache=cache, **asked)
                for cache in (True, False)
            )
        assert one.tolist() == other.tolist()


def test_scores_do_not_depend_on_the_storage_of_rows(models):
    """In a fused layer, heads are scored by all of their rows and by the columns that read them."""
    subject = subject_of(models("gpt-neox"))
    scored = survey(Structured(what="heads"), subject)
    family = scored[0].family
    made, read = (
        subject.original.model.get_submodule(part.name).stored.to_dense() for part in family.parts
    )
    due = [
        (
            made[36 * head : 36 * head + 36].square().sum()
            + read[:, 12 * head : 12 * head + 12].square().sum()
        ).sqrt()
        for head in range(4)
    ]
    torch.testing.assert_close(scored[0].scores, torch.stack(due))
