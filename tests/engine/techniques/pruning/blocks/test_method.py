"""A model without blocks computes what it does when they are deleted."""

import pytest
import torch

from engine.errors import PlainError
from engine.pipeline.run import run
from engine.techniques.implementations import survey
from engine.techniques.pruning.blocks.config import Blocks
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.structures import (
    BLOCKS,
    TRANSFORMERS,
    assert_alike,
    error_message,
    number_of,
    open_saved,
    plain,
    plain_of_packed,
    subject_of,
)
from tests.tiny import tiny


@for_each("count", [1, 2])
@for_each("architecture", TRANSFORMERS)
def test_without_blocks_a_model_computes_what_it_does_when_they_are_deleted(
    architecture, count, tmp_path
):
    depth = {"gpt2": "n_layer"}.get(architecture, "num_hidden_layers")
    folder = tiny(architecture, tmp_path / "model", **{depth: 4})
    outcome = run(
        recipe_for(
            architecture, folder, tmp_path / "data", {"technique": "blocks", "count": count}
        ),
        save=tmp_path / "saved",
    )
    rows, reference = outcome.tables.structures, plain(architecture, folder)
    assert (~rows.kept).sum() == count and rows.score[~rows.kept].max() <= rows.score[
        rows.kept
    ].min()
    blocks = reference.get_submodule(rows.block[0].rpartition(".")[0])
    for block in rows.block[~rows.kept][::-1]:
        del blocks[number_of(block)]
    small = open_saved(tmp_path / "saved").model
    assert_alike(small, reference, architecture)
    assert small.config.num_hidden_layers == 4 - count
    assert_alike(plain_of_packed(architecture, tmp_path / "saved"), small, architecture)


def test_influence_is_one_minus_the_cosine_of_the_states_around_a_block(folders, tmp_path):
    subject = subject_of("llama", folders, tmp_path, BLOCKS["blocks"])
    found = survey(Blocks(), subject)
    model, cosines = plain("llama", folders["llama"]), []
    for block in model.model.layers:
        block.register_forward_hook(
            lambda module, args, output: cosines[-1].append(
                torch.cosine_similarity(args[0], output, dim=-1)
            )
        )
    with torch.inference_mode():
        for batch in subject.layer_swap.batches:
            cosines.append([])
            model(**batch)
    due = [
        1 - torch.cat([batch[number].flatten() for batch in cosines]).mean().item()
        for number in range(2)
    ]
    assert list(found.values()) == pytest.approx(due, rel=1e-4)


@pytest.mark.parametrize(("what", "skip"), [("neurons", ["*mlp*"]), ("heads", ["*attn*"])])
def test_skipping_every_structure_gives_a_message(what, skip, folders, tmp_path):
    step = {"technique": "structured", "what": what, "share": 0.5}
    assert "(layers.skip) lists" in error_message(
        "llama", folders, tmp_path, step, layers={"skip": [*skip, "lm_head"]}
    )
    assert "Only 0 of 2 blocks can be removed" in error_message(
        "llama", folders, tmp_path, BLOCKS["blocks"], layers={"skip": [*skip, "lm_head"]}
    )


def test_blocks_that_compute_by_their_number_are_refused(tmp_path):
    folder = tiny("gpt2", tmp_path / "model", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(PlainError, match="depend on their number"):
        run(recipe_for("gpt2", folder, tmp_path / "data", BLOCKS["blocks"]))
