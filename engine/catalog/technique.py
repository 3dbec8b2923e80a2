"""What every technique is: a frozen config that is validation, form, help text, YAML and cache key at once."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal["quantization", "pruning", "low-rank", "distillation", "training"]
# what a layer is made of: its weights, fewer of them, weights of which many are zero, smaller matrices whose product it is, codes, any of these
# with an adapter beside it
Made = Literal["dense", "fewer", "zeros", "factors", "codes", "adapters"]
# of calibration data: nothing, the model's answers, what flows from block to block, how far each layer's inputs reach, how they go together,
# the slopes of the loss
Needs = Literal["nothing", "answers", "states", "range", "gram", "gradients"]
LayerKind = Literal["linear", "conv1d", "conv2d", "embedding"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Technique(Frozen):
    """One step of a recipe. Subclasses add a ``technique`` literal and their options."""

    title: ClassVar[str]
    family: ClassVar[Family]
    kind: ClassVar[str]  # what it is among those of its family, for a picker
    summary: ClassVar[str]  # one line for a picker
    idea: ClassVar[str]  # a paragraph in plain words
    formula: ClassVar[str]  # LaTeX
    fails: ClassVar[str]  # when not to use it
    paper: ClassVar[str]  # title and link, Markdown
    takes: ClassVar[tuple[Made, ...]] = ("dense", "fewer", "zeros")  # what a layer may be made of before it
    leaves: ClassVar[Made] = "codes"  # and is made of after it
    treats: ClassVar[tuple[LayerKind, ...]] = ("linear", "conv1d", "conv2d", "embedding")  # kinds of layers; others stay as they are
    needs: ClassVar[Needs] = "nothing"  # a property where the options decide
    size_depends_on_data: ClassVar[bool] = False  # whether a forecast of its size is only a lower bound
    folds: ClassVar[bool] = False  # whether scales move between a layer and the one before it
    trains: ClassVar[bool] = False  # whether weights learn from examples before they are stored
    counts_epochs: ClassVar[bool] = False  # whether it may learn for so many epochs instead of steps
    in_step: ClassVar[bool] = False  # whether a layer sees what those before it in its block make of the data once they are compressed
    technique: str

    @model_validator(mode="before")
    @classmethod
    def chosen_with_it(cls, given: Any) -> Any:
        """What an option that is given presupposes is chosen along with it, where that is a single choice: ``rank: 8`` is ``by: rank`` too.
        Raises ValueError where there is more than one, or none that suits all: nobody's option is passed over.
        """
        presupposed = {}
        for name, other, values in cls.presuppositions(given) if isinstance(given, dict) else ():
            presupposed[other] = [value for value in presupposed.get(other, values) if value in values]
            if len(presupposed[other]) != 1:
                allowed = " or ".join(map(str, values))
                raise ValueError(f"{name} has a meaning only where {other} is {allowed}; say which {other}, or leave {name} out")
        return given | {other: values[0] for other, values in presupposed.items()} if presupposed else given

    @classmethod
    def presuppositions(cls, given: dict[str, Any]) -> Iterator[tuple[str, str, list]]:
        """Options that are given, and what others must be for them to have a meaning, where these are not given and are something else."""
        for name, value in given.items():
            field = cls.model_fields.get(name)
            if field and field.json_schema_extra and value != field.default:
                for other, values in field.json_schema_extra["when"].items():
                    if other not in given and cls.model_fields[other].default not in values:
                        yield name, other, values

    @property
    def group(self) -> int:
        """How many neighbouring weights of a row were asked to share a scale; 0 where groups are not what shares one."""
        return 0

    @property
    def models(self) -> tuple[str, ...]:
        """Other models that it names."""
        return ()

    @property
    def size_is_at_most(self) -> bool:
        """Whether a forecast of its size is only an upper bound."""
        return False

    @property
    def may_change_nothing(self) -> bool:
        """Whether a layer that comes out as it was is what was asked for."""
        return False

    def label(self) -> str:
        """A few words that tell this setting from others, for charts and lists."""
        return self.title


def option(
    default: Any, description: str, *, title: str, advanced: bool = False, when: dict[str, list] | None = None,
    unless: dict[str, list] | None = None, stops: tuple[int, ...] = (), choices: tuple[str, ...] = (), words: dict[str, str] | None = None,
    **bounds: Any,
) -> Any:  # fmt: skip
    """A field with what a form needs to draw it.

    ``when`` names other options and their values for which this one has a meaning, such as ``{"granularity": ["group"]}``, and
    ``unless`` those for which it has none;
    ``advanced`` ones are drawn under "More options"; ``stops`` are the values a slider stops at; ``choices`` what a text that may be anything
    mostly is; ``words`` say a choice in plain English.
    """
    extra = {"advanced": advanced, "when": when or {}, "unless": unless or {}, "stops": list(stops), "choices": list(choices), "words": words or {}}
    return Field(default, title=title, description=description, json_schema_extra=extra, **bounds)
