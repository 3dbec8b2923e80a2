"""Labels of points are placed where they cover nothing."""

from pages.panels.placement import SIDES, Box, label_sides


def test_a_label_with_room_is_on_the_first_side():
    assert label_sides([(0.1, 0.5)], ["GPTQ"]) == [SIDES[0]]


def test_label_at_the_right_edge_turns_inwards():
    assert label_sides([(0.99, 0.5)], ["Uncompressed"])[0].endswith("left")


def test_first_label_chooses_first():
    sides = label_sides([(0.5, 0.5)] * 9, ["a long enough label"] * 9)
    assert sides[0] and sides[-1] == ""


def test_boxes_that_only_touch_do_not_meet():
    assert not Box(0, 1, 0, 1).overlaps(Box(1, 2, 0, 1)) and Box(0, 1, 0, 1).overlaps(
        Box(0.5, 2, 0.5, 2)
    )
