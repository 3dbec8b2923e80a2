"""Linear CKA: equal, turned and unrelated states, beside a few lines of numpy; and of whole runs on
every kind of model.
"""

from itertools import permutations

import numpy as np
import pytest
import torch

from engine.measurement import similarity
from engine.measurement.similarity import (
    EMBEDDINGS,
    CKAEstimate,
    centered_gram,
    hsic,
    with_equal_row_counts,
)
from engine.pipeline.run import run
from tests.cases import for_each
from tests.recipes import recipe_for

SAME = {"technique": "distill", "student": "same", "steps": 1, "batch": 4, "rate": 0}
HALF = {"technique": "distill", "steps": 2, "batch": 4}


def alike(ours: torch.Tensor, theirs: torch.Tensor, groups: int = 1) -> float:
    likeness = CKAEstimate()
    for one, other in zip(ours.chunk(groups), theirs.chunk(groups), strict=True):
        likeness.add([one], [other])
    return likeness.similarity().item()


def plain_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith et al. 2019, equation 4, with the features' covariances."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def counted_hsic(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Song et al. 2012, equation 4: the mean over all pairs, triples and quadruples of different
    rows.
    """
    pairs, triples, quadruples = (
        list(permutations(range(len(ours)), count)) for count in (2, 3, 4)
    )
    together = np.mean([ours[i, j] * theirs[i, j] for i, j in pairs])
    apart = np.mean([ours[i, j] * theirs[q, r] for i, j, q, r in quadruples])
    return together + apart - 2 * np.mean([ours[i, j] * theirs[i, q] for i, j, q in triples])


@pytest.fixture
def states() -> torch.Tensor:
    return torch.randn(300, 12, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 13)


def test_equal_states_are_alike_also_turned_scaled_and_shifted(states):
    turn, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))
    for other in (states, states @ turn, 3 * states, states + 100):
        assert alike(states, other) == pytest.approx(1, abs=1e-4)


def test_unrelated_states_are_not_alike_even_where_they_are_wider_than_there_are_rows():
    ours, theirs = (
        torch.randn(64, 500, generator=torch.Generator().manual_seed(0)),
        torch.randn(64, 400, generator=torch.Generator().manual_seed(1)),
    )
    assert plain_cka(ours.numpy(), theirs.numpy()) > 0.8
    assert abs(alike(ours, theirs)) < 0.1


@pytest.mark.parametrize("groups", [1, 3])
def test_of_many_rows_it_is_what_the_plain_formula_gives(groups):
    ours = torch.randn(3000, 6, generator=torch.Generator().manual_seed(0))
    theirs = ours @ torch.randn(6, 4, generator=torch.Generator().manual_seed(1)) + torch.randn(
        3000, 4, generator=torch.Generator().manual_seed(2)
    )
    assert alike(ours, theirs, groups) == pytest.approx(
        plain_cka(ours.numpy(), theirs.numpy()), abs=0.01
    )


def test_each_term_is_the_mean_over_different_rows():
    ours, theirs = (
        torch.randn(7, width, generator=torch.Generator().manual_seed(width)) for width in (3, 5)
    )
    one, other = (centered_gram(each) for each in (ours, theirs))
    assert hsic(one[None], other[None]).item() == pytest.approx(
        counted_hsic(one.numpy(), other.numpy()), rel=1e-6
    )


@for_each("architecture", ["llama", "gpt2", "opt", "bert", "resnet"])
def test_an_untrained_copy_equals_its_teacher_block_by_block(architecture, folders, tmp_path):
    table = run(
        recipe_for(architecture, folders[architecture], tmp_path / "data", SAME)
    ).tables.similarity
    blocks = table.student.unique().tolist()
    assert (
        blocks[0] == EMBEDDINGS
        and len(blocks) == (4 if architecture == "resnet" else 3)
        and len(table) == len(blocks) ** 2
    )
    assert table[table.student == table.teacher].similarity.tolist() == pytest.approx(
        [1] * len(blocks), abs=1e-3
    )
    assert (
        table.similarity.max() <= 1 + 1e-3
        and (table[table.student != table.teacher].similarity < 1 - 1e-4).all()
    )


@pytest.mark.parametrize("architecture", ["bert", "resnet"])
def test_a_smaller_student_has_a_row_for_each_of_its_own_blocks(architecture, folders, tmp_path):
    table = run(
        recipe_for(architecture, folders[architecture], tmp_path / "data", HALF | {"width": 0.5})
    ).tables.similarity
    assert (table.student.nunique(), table.teacher.nunique()) == (
        (3, 4) if architecture == "resnet" else (2, 3)
    )
    assert table.similarity.between(-1, 1).all()


def test_states_of_other_numbers_of_rows_are_left_out():
    one, other = (
        {"a": torch.ones(6, 2), "b": torch.ones(3, 2)},
        {"c": torch.ones(6, 4), "d": torch.ones(5, 4)},
    )
    assert [list(each) for each in with_equal_row_counts([one, other])] == [["a"], ["c"]]


def test_a_model_that_hands_states_on_in_its_own_way_is_compared_where_it_can_be(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(similarity, "first_output", lambda output: None)
    table = run(recipe_for("bert", folders["bert"], tmp_path / "data", SAME)).tables.similarity
    assert table[["student", "teacher"]].to_numpy().tolist() == [[EMBEDDINGS, EMBEDDINGS]]


def test_what_is_no_distillation_is_not_compared(folders, tmp_path):
    tables = run(
        recipe_for("bert", folders["bert"], tmp_path / "data", {"technique": "round-to-nearest"})
    ).tables
    assert tables.similarity.empty and tables.verdicts.empty and tables.mistakes.empty
