"""Options shared by techniques of several families."""

from typing import Any

DAMPING: dict[str, Any] = {
    "default": 0.01,
    "title": "Damping",
    "advanced": True,
    "ge": 0.0001,
    "le": 1,
    "stops": (0.0001, 0.001, 0.01, 0.1, 1),
    "description": (
        "Added to the diagonal of H, as a share of its mean, so that H can be inverted. "
        "Increased automatically where that is not enough."
    ),
}
