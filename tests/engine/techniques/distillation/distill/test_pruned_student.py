"""Students made of some of the teacher's blocks."""

import json

from engine.pipeline.run import run
from tests.cases import for_each
from tests.distillation import SHORT
from tests.recipes import recipe_for
from tests.tiny import LANGUAGE_MODELS, tiny


@for_each("architecture", [*LANGUAGE_MODELS, "bert"])
def test_every_other_block_starts_with_the_teachers_weights(architecture, tmp_path, folders):
    deep = tiny(
        architecture,
        tmp_path / "deep",
        **{"n_layer" if architecture == "gpt2" else "num_hidden_layers": 4},
    )
    outcome = run(
        recipe_for(architecture, deep, tmp_path / "data", SHORT | {"rate": 0}),
        save=tmp_path / "student",
    )
    rows = outcome.tables.layers
    left = rows[(rows.parameters > 0) & rows.block.ne("")]
    assert {int(block.rpartition(".")[2]) for block in left.block} == {0, 2} and (
        left.relative_error == 0
    ).all()
    gone = rows[rows.parameters == 0]
    assert {int(block.rpartition(".")[2]) for block in gone.block} == {1, 3}


def test_a_resnet_loses_blocks_of_every_stage_but_the_first(run_step, tmp_path):
    run_step("resnet", save=tmp_path / "student")
    assert json.loads((tmp_path / "student" / "config.json").read_text())["depths"] == [1, 1]
