"""Sides of markers on which labels fit without covering other labels or markers."""

from typing import NamedTuple

PLOT_WIDTH, PLOT_HEIGHT = (
    420,
    300,
)  # assumed size of the plot in pixels, between a phone's and a laptop's
CHARACTER, LINE, MARKER = 6, 15, 7
CLEARANCE = 13  # distance from other markers, so that labels are not attributed to them
SIDES = ("top right", "bottom right", "top left", "bottom left", "middle right", "middle left")


class Box(NamedTuple):
    left: float
    right: float
    bottom: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def label_sides(points: list[tuple[float, float]], labels: list[str]) -> list[str]:
    """Plotly's ``textposition`` for each label, or "" without room; earlier labels have priority.
    Points are shares of the plot's width and height, 0 to 1, from the lower left corner.
    """
    pixels, used_boxes, sides = [(x * PLOT_WIDTH, y * PLOT_HEIGHT) for x, y in points], [], []
    for position, label in zip(pixels, labels, strict=True):
        point_boxes = [
            Box(x - CLEARANCE, x + CLEARANCE, y - CLEARANCE, y + CLEARANCE)
            for x, y in pixels
            if (x, y) != position
        ]
        boxes = {side: text_box(*position, CHARACTER * len(label), side) for side in SIDES}
        side = next(
            (
                s
                for s, box in boxes.items()
                if is_inside_plot(box)
                and not any(box.overlaps(t) for t in used_boxes + point_boxes)
            ),
            "",
        )
        used_boxes += [boxes[side]] if side else []
        sides.append(side)
    return sides


def text_box(x: float, y: float, width: float, side: str) -> Box:
    vertical, horizontal = side.split()
    middle = y + {"top": 1, "middle": 0, "bottom": -1}[vertical] * (MARKER + LINE / 2)
    left = x + MARKER if horizontal == "right" else x - MARKER - width
    return Box(left, left + width, middle - LINE / 2, middle + LINE / 2)


def is_inside_plot(box: Box) -> bool:
    return box.left >= 0 and box.right <= PLOT_WIDTH
