"""Hostile model folders are answered or refused with a message, without much time or memory."""

from tests.hostile_models import asked_as_a_page, hostile

FIRST_SEED, FOLDERS = 1000, 40


def test_a_hostile_folder_is_answered_or_refused_in_a_sentence(bases, tmp_path):
    refused = 0
    for seed in range(FIRST_SEED, FIRST_SEED + FOLDERS):
        done = hostile(bases, tmp_path / str(seed), seed)
        outcome = asked_as_a_page(tmp_path / str(seed), calibrated=seed % 4 == 0)
        assert not outcome.traceback, f"seed {seed}, {done}\n{outcome.traceback}"
        assert not outcome.sentence or outcome.sentence.endswith("."), (
            f"seed {seed}, {done}: {outcome.sentence}"
        )
        refused += bool(outcome.sentence)
    assert FOLDERS / 3 < refused < FOLDERS, "some are spoiled, and some are sound enough"


def test_a_valid_folder_of_every_kind_is_answered(bases):
    for base in bases.values():
        (base / "text.txt").write_text("The weights of a layer are rounded to four bits. " * 100)
        outcome = asked_as_a_page(base)
        assert (outcome.sentence, outcome.traceback) == ("", "")
