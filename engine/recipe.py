"""A recipe: a model, a task and the ordered steps that compress it. YAML and JSON both ways; its key names a run."""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from engine import __version__
from engine.catalog import TECHNIQUES, Step
from engine.catalog.models import BUNDLED, existing
from engine.catalog.tasks import Calibration, LanguageModeling, Task, TextClassification, Training
from engine.catalog.technique import Frozen, Technique
from engine.errors import PlainError, one_of, refusal

# What PyYAML lets through of its own: a 32nd of March, !!bool 3, 5000 digits, a thousand open brackets.
MERGE = "tag:yaml.org,2002:merge"  # of the key <<, which may come more than once
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)

MOST_NAMED = 3  # techniques that an advice names

LEFT = {
    "fewer": "layers of other shapes",
    "zeros": "zeros that it would fill or overlook",
    "factors": "two smaller matrices in the place of each layer",
    "codes": "codes in the place of weights",
    "adapters": "adapters beside the weights of each layer",
}


class Layers(Frozen):
    """Which layers the steps may touch, by name or glob. Embeddings only where ``include`` names them."""

    skip: tuple[str, ...] = ("lm_head",)
    include: tuple[str, ...] = ()


class Recipe(Frozen):
    model: str = Field("bundled:docs-lm", min_length=1, max_length=4096)
    task: Task = LanguageModeling()
    calibration: Calibration | None = None
    training: Training | None = None
    seed: int = Field(0, ge=0, lt=2**32)
    layers: Layers = Layers()
    steps: tuple[Step, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    speed: bool = True  # whether the result is timed, where a real kernel runs it; a part of the key, as what is asked for comes back

    @model_validator(mode="after")
    def shown_data(self) -> "Recipe":
        """A step that looks at data or learns from it gets the usual calibration where none is named."""
        if self.calibration is None and any(step.needs != "nothing" or step.trains for step in self.steps):
            usual = self.usual_calibration
            fitting = usual.model_copy(update={"context": min(usual.context, getattr(self.task, "context", usual.context))})
            object.__setattr__(self, "calibration", fitting)
        return self

    @property
    def usual_calibration(self) -> Calibration:
        """Of texts with labels, those to learn from, where they are named."""
        if not (isinstance(self.task, TextClassification) and self.training and self.training.train):
            return Calibration()
        return Calibration(text=self.training.train, text_column=self.training.text_column or self.task.text_column)

    @model_validator(mode="after")
    def learns_from_it(self) -> "Recipe":
        """Data to learn from has a step that learns, and epochs one that counts them."""
        if self.training and not any(step.trains for step in self.steps):
            raise ValueError("training names data to learn from, but no step learns; add one such as distill, or leave training out")
        deaf = next((step for step in self.steps if step.trains and not step.counts_epochs), None)
        if self.training and self.training.epochs and deaf:
            raise ValueError(f"training.epochs has no meaning for {deaf.title}, whose course is counted in steps; set its steps and leave epochs out")
        return self

    @field_validator("steps")
    @classmethod
    def composable(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if why := order_refused(steps):
            raise ValueError(why)
        return steps

    @classmethod
    def of(cls, fields: Any) -> "Recipe":
        """From plain data. Raises PlainError with the first thing wrong."""
        if not isinstance(fields, dict):
            raise PlainError(f"A recipe is a mapping with keys such as model and steps; this one is a {type(fields).__name__}.")
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise refusal(error, cls) from None

    @classmethod
    def from_yaml(cls, text: str) -> "Recipe":
        """Raises PlainError when the text is no YAML or no recipe."""
        return cls.of(said(text))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120)

    def key(self) -> str:
        """16 hex digits of everything that changes the answer: recipe, engine version, and the local files it names."""
        files = [identity(self.model), identity(self.task.source)]
        files += [identity(self.calibration.text)] if self.calibration else []
        files += [identity(further) for further in self.task.further]
        files += [identity(source) for source in self.sources_of_training if source]
        return hashlib.sha256("\n".join([__version__, self.model_dump_json(exclude=self.left_empty), *files]).encode()).hexdigest()[:16]

    @property
    def left_empty(self) -> dict[str, Any]:
        """Fields that are younger than others: a recipe without them has the key that it had before there were any."""
        further = {} if self.task.also else {"task": {"also"}}
        return further | ({} if self.training else {"training": True})

    @property
    def sources_of_training(self) -> tuple[str, ...]:
        """Data and models that steps learn from."""
        data = (self.training.train, self.training.validation, self.training.unlabelled) if self.training else ()
        return (*data, *(name for step in self.steps for name in step.models))

    def label(self) -> str:
        """The steps in a few words."""
        steps = " → ".join(step.label() for step in self.steps) or "Uncompressed"
        return f"{steps}, seed {self.seed}" if self.seed else steps


def order_refused(steps: Sequence[Technique]) -> str:
    """Why steps cannot follow one another so, and what to do; empty where they can. Each says what a layer may be made of before it."""
    made, by = "dense", None
    for step in steps:
        if made not in step.takes:
            return f"{step.title} cannot come after {by.title}, which leaves {LEFT[made]}; {advice(by, step)}"
        if step.leaves != "dense":
            made, by = step.leaves, step
    return ""


def advice(first: Technique, second: Technique) -> str:
    """What to do about two steps in an order that is not possible."""
    if second.leaves in first.takes:
        return "swap the two"
    alike = [how.title for how in TECHNIQUES.values() if how.family == second.family and first.leaves in how().takes]
    return f"leave one of the two out, or let {one_of(alike[:MOST_NAMED])} follow" if alike else "leave one of the two out"


class Once(yaml.SafeLoader):
    """Takes no key twice: YAML's own loader keeps the last and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.constructor.ConstructorError(problem=f"{twice[:60]!r} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def said(text: str) -> Any:
    """What the YAML says, as plain data. Raises PlainError."""
    try:
        return yaml.load(text, Once)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        at = f" (line {where.line + 1}, column {where.column + 1})" if where else ""
        raise PlainError(f"The recipe is not valid YAML{at}: {getattr(error, 'problem', None) or 'cannot be read'}.") from None
    except UNREADABLE:
        raise PlainError("The recipe is not valid YAML: a date, number or tag in it cannot be read; put quotes around plain text.") from None


def identity(source: str) -> str:
    """Names, sizes and times of the files a local source is made of; empty for anything else."""
    bundled = BUNDLED.get(source.removeprefix("bundled:"))
    path = existing(str(bundled.folder) if bundled else source)
    if not path:
        return ""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return ";".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)
