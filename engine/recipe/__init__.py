"""A recipe: a model, a task and the ordered steps that compress it. It is read from and written as
YAML or JSON, and its key identifies a run.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticSerializationError

from engine import __version__
from engine.config.registry import TECHNIQUES, Step
from engine.config.technique import FrozenModel, Technique
from engine.errors import PlainError, one_of, option_name, plain_error
from engine.recipe.model_names import BUNDLED_MODELS, existing_path
from engine.recipe.tasks import Calibration, LanguageModeling, Task, TextClassification, Training
from engine.recipe.text import parse

MAX_STEPS = 32
# newer fields of a task, and their meaning in recipes without them
MEANING_IF_ABSENT = {"also": "", "bos": "never", "text_pair_column": ""}
MAX_NAMED = 3  # techniques that advice names

WEIGHT_STATE_NAMES = {
    "fewer": "layers with other shapes",
    "zeros": "zeros that it would not keep",
    "factors": "two factors in place of each layer",
    "codes": "quantized codes in place of weights",
    "adapters": "adapters next to each layer's weights",
}


def with_newer_fields(fields: Any) -> Any:
    """Add newer fields to a recipe stored by any version, with their meaning at that time.

    New recipes get the defaults instead.
    """
    if not isinstance(fields, dict):
        return fields
    task, steps = fields.get("task"), fields.get("steps")
    if isinstance(task, dict) and task.get("kind") == "language-modeling":
        fields = fields | {"task": {"bos": MEANING_IF_ABSENT["bos"]} | task}
    if isinstance(steps, list | tuple):
        fields = fields | {"steps": [step_with_newer_options(step) for step in steps]}
    return fields


def step_with_newer_options(step: Any) -> Any:
    """Add newer options to a stored step, with their meaning at that time."""
    technique = step.get("technique") if isinstance(step, dict) else None
    is_known = isinstance(technique, str) and technique in TECHNIQUES
    return TECHNIQUES[technique].meaning_if_absent | step if is_known else step


def unchanged_options(step: Technique) -> set[str]:
    """Newer options that have their meaning in recipes stored without them."""
    newer = step.meaning_if_absent.items()
    return {name for name, meaning in newer if getattr(step, name) == meaning}


class Layers(FrozenModel):
    """Layers that steps may change, by name or pattern. Embeddings and routers are changed only if
    ``include`` names them.
    """

    section: ClassVar[str] = "layers"

    skip: tuple[str, ...] = Field(("lm_head",), title="Layers to skip")
    include: tuple[str, ...] = Field((), title="Embeddings and routers to include")


class Recipe(FrozenModel):
    model: str = Field("bundled:docs-lm", min_length=1, max_length=4096)
    task: Task = LanguageModeling()
    calibration: Calibration | None = None
    training: Training | None = None
    seed: int = Field(0, ge=0, lt=2**32)
    layers: Layers = Layers()
    steps: tuple[Step, ...] = ()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    # whether the result is timed, where a real kernel runs it; part of the key, because the result
    # depends on it
    speed: bool = True

    @model_validator(mode="after")
    def add_default_calibration(self) -> "Recipe":
        """Add the default calibration data if a step reads calibration data and the recipe names
        none.
        """
        if self.calibration is None and any(
            step.needs != "nothing" or step.trains for step in self.steps
        ):
            default = self.default_calibration
            calibration = default.model_copy(
                update={
                    "context": min(default.context, getattr(self.task, "context", default.context))
                }
            )
            object.__setattr__(self, "calibration", calibration)
        return self

    @property
    def default_calibration(self) -> Calibration:
        """Default calibration data: the training texts of a classifier if the recipe names them."""
        if not (
            isinstance(self.task, TextClassification) and self.training and self.training.train
        ):
            return Calibration()
        return Calibration(
            text=self.training.train, text_column=self.training.text_column or self.task.text_column
        )

    @model_validator(mode="after")
    def check_training(self) -> "Recipe":
        """Check that training data has a step that trains, and epochs a step that counts them."""
        if self.training and not any(step.trains for step in self.steps):
            raise ValueError(
                "training is set, but no step trains; add one such as distill, or remove training"
            )
        without_epochs = next(
            (step for step in self.steps if step.trains and not step.counts_epochs), None
        )
        if self.training and self.training.epochs and without_epochs:
            raise ValueError(
                f"{option_name(Training, 'epochs')} does not apply to {without_epochs.title}, "
                "which counts steps; set its steps and remove epochs"
            )
        return self

    @field_validator("steps", mode="before")
    @classmethod
    def check_step_count(cls, steps: Any) -> Any:
        """Check the number of steps before any of them is parsed."""
        if isinstance(steps, list | tuple) and len(steps) > MAX_STEPS:
            raise ValueError(
                f"{len(steps):,} steps are given, and at most {MAX_STEPS} are allowed; split "
                "them into several recipes"
            )
        return steps

    @field_validator("steps")
    @classmethod
    def check_step_order(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if error := step_order_error(steps):
            raise ValueError(error)
        return steps

    @classmethod
    def from_dict(cls, fields: Any) -> "Recipe":
        """Build a recipe from plain data. Raises PlainError with the first error."""
        if not isinstance(fields, dict):
            raise PlainError(
                "A recipe is a mapping with keys such as model and steps; this one is a "
                f"{type(fields).__name__}."
            )
        try:
            recipe = cls.model_validate(fields)
        except ValidationError as error:
            raise plain_error(error, cls) from None
        try:
            recipe.model_dump_json()
        except PydanticSerializationError:
            raise PlainError(
                "The recipe contains an invalid character (a lone surrogate); save it as UTF-8."
            ) from None
        return recipe

    @classmethod
    def from_yaml(cls, text: str) -> "Recipe":
        """Parse YAML or JSON.

        Raises PlainError if the text is neither, exceeds a limit, or is not a recipe.
        """
        return cls.from_dict(parse(text))

    def to_yaml(self) -> str:
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120
        )

    def key(self) -> str:
        """16 hex digits of everything that affects the result: recipe, engine version, and the
        local files it names.
        """
        files = [file_identity(self.model), file_identity(self.task.source)]
        files += [file_identity(self.calibration.text)] if self.calibration else []
        files += [file_identity(name) for name in self.task.further]
        files += [file_identity(source) for source in self.training_sources if source]
        parts = [
            __version__,
            self.model_dump_json(exclude=self.default_fields),
            *files,
            *self.revisions,
        ]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def revisions(self) -> tuple[str, ...]:
        """Revisions above 1 of the steps' methods; empty if there are none, so that older keys do
        not change.
        """
        return tuple(
            f"step {number} revision {step.revision}"
            for number, step in enumerate(self.steps, start=1)
            if step.revision > 1
        )

    @property
    def default_fields(self) -> dict[str, Any]:
        """Fields that were added later and are omitted if they have no effect, so that older keys
        do not change.
        """
        task = {
            name
            for name, empty in MEANING_IF_ABSENT.items()
            if getattr(self.task, name, empty) == empty
        }
        steps = dict(enumerate(map(unchanged_options, self.steps)))
        return {"task": task, "steps": steps} | ({} if self.training else {"training": True})

    @property
    def training_sources(self) -> tuple[str, ...]:
        """Data and models for training."""
        data = (
            (self.training.train, self.training.validation, self.training.unlabelled)
            if self.training
            else ()
        )
        return (*data, *(name for step in self.steps for name in step.models))

    def label(self) -> str:
        """Short description of the steps."""
        steps = " → ".join(step.label() for step in self.steps) or "Uncompressed"
        return f"{steps}, seed {self.seed}" if self.seed else steps


def step_order_error(steps: Sequence[Technique]) -> str:
    """Reason why steps cannot follow each other, and what to do; empty if they can. Each step
    states the weight states that it accepts.
    """
    weight_state, by = "dense", None
    for step in steps:
        if weight_state not in step.accepts:
            return (
                f"{step.title} cannot come after {by.title}, which leaves "
                f"{WEIGHT_STATE_NAMES[weight_state]}; {order_advice(by, step)}"
            )
        if step.produces != "dense":
            weight_state, by = step.produces, step
    return ""


def order_advice(first: Technique, second: Technique) -> str:
    """Advice for two steps in an order that is not possible."""
    if second.produces in first.accepts:
        return "swap the two"
    alternatives = [
        config.title
        for config in TECHNIQUES.values()
        if config.family == second.family and first.produces in config().accepts
    ]
    return (
        f"remove one of them, or use {one_of(alternatives[:MAX_NAMED])} next"
        if alternatives
        else "remove one of them"
    )


def file_identity(source: str) -> str:
    """Names, sizes and times of the files of a local source; empty for other sources."""
    bundled = BUNDLED_MODELS.get(source.removeprefix("bundled:"))
    path = existing_path(str(bundled.folder) if bundled else source)
    if not path:
        return ""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return ";".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)
