from pages.panels.training.block_similarity import block_similarity
from tests.pages.panels import tables


def test_each_of_the_students_blocks_is_framed_where_it_resembles_its_teacher_most():
    tiles, frames = block_similarity(tables.similarity()).data
    assert list(tiles.y) == ["input", "1", "2"] and list(tiles.x) == ["input", "1", "2", "3", "4"]
    assert list(zip(frames.y, frames.x, strict=True)) == [
        ("input", "input"),
        ("1", "2"),
        ("2", "4"),
    ]


def test_numbers_are_written_only_where_there_is_room():
    assert (
        block_similarity(tables.similarity(4)).data[0].texttemplate
        and not block_similarity(tables.similarity(24)).data[0].texttemplate
    )
