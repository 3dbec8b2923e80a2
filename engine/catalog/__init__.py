"""What can be asked for: techniques, models and tasks. Typed configs; nothing here computes."""

from typing import Annotated

from pydantic import Field

from engine.catalog.quantization import BitsAndBytes, RoundToNearest
from engine.catalog.technique import Technique

TECHNIQUES: dict[str, type[Technique]] = {cls.model_fields["technique"].default: cls for cls in (RoundToNearest, BitsAndBytes)}
Step = Annotated[RoundToNearest | BitsAndBytes, Field(discriminator="technique")]
