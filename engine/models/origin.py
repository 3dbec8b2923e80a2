"""Parameter counts of the original model, stored with every compressed model: denominators of bits
per weight and per parameter.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from engine.errors import PlainError


@dataclass(frozen=True)
class Origin:
    """Counts of the model before any step, so that methods that remove parameters and methods that
    shorten them have the same denominator.
    """

    parameters: int  # of the original model, with tied tensors counted once
    # compressed layer's name in the file -> its original parameters
    compressed: dict[str, int] = field(default_factory=dict)
    removed: int = 0  # original parameters of compressed layers that are no longer in the file

    @property
    def compressed_parameters(self) -> int:
        return sum(self.compressed.values()) + self.removed

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Any, name: str) -> Self:
        """Parse what ``to_json`` returned; ``name`` is the model's name in messages.

        Raises PlainError for anything else.
        """
        is_valid = (
            isinstance(fields, dict)
            and fields.keys() == cls.__dataclass_fields__.keys()
            and isinstance(fields["compressed"], dict)
        )
        counts = (
            [fields["parameters"] - 1, fields["removed"], *fields["compressed"].values()]
            if is_valid and is_count(fields["parameters"])
            else [-1]
        )
        if not all(map(is_count, counts)):
            raise PlainError(
                f"The origin in compression.json of {name} is damaged; compress the model "
                "again from its recipe."
            )
        return cls(**fields)


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
