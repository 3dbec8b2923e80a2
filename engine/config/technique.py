"""Base class of all techniques: a frozen config that provides validation, form, help text, YAML and
cache key.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.errors import option_name

Family = Literal["quantization", "pruning", "low-rank", "distillation", "training"]
# what a layer consists of: dense weights, fewer of them (structures removed), weights with many
# zeros, low-rank factors, quantized codes, or any of these plus an adapter
WeightState = Literal["dense", "fewer", "zeros", "factors", "codes", "adapters"]
# what a method reads from calibration data: nothing, model outputs, hidden states between blocks,
# the range of each layer's inputs, their Gram matrix, or gradients of the loss
Needs = Literal["nothing", "answers", "states", "range", "gram", "gradients"]
# conv1d: GPT-2's transposed linear layer; convolution1d: a convolution along one axis
LayerKind = Literal["linear", "conv1d", "convolution1d", "conv2d", "embedding"]
# views of one layer that are computed live, besides those that every technique has
LiveView = Literal["mask-overlap", "singular-values", "rank-planner", "input-ranges"]
# where a step can be tried on a single layer: anywhere in a recipe, only as the last step (the
# weights that its training hands to later steps are not known), or nowhere
LayerPreviews = Literal["any-step", "last-step", "none"]
ALL_LAYER_KINDS: tuple[LayerKind, ...] = get_args(LayerKind)


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    section: ClassVar[str] = ""  # key of a recipe that holds the fields; empty for steps


class Technique(FrozenModel):
    """One step of a recipe. Subclasses add a ``technique`` literal and their options."""

    list_position: ClassVar[int] = 1000  # in pickers and lists; smaller ones come first
    title: ClassVar[str]
    brief: ClassVar[str] = ""  # shorter title for crowded places, where the title is long
    family: ClassVar[Family]
    kind: ClassVar[str]  # subgroup within the family, for a picker
    summary: ClassVar[str]  # one line for a picker
    explanation: ClassVar[str]  # one paragraph for learners
    formula: ClassVar[str]  # LaTeX
    limitations: ClassVar[str]  # when not to use it
    paper: ClassVar[str]  # title and link, Markdown
    accepts: ClassVar[tuple[WeightState, ...]] = (
        "dense",
        "fewer",
        "zeros",
    )  # accepted weight states
    produces: ClassVar[WeightState] = "codes"  # resulting weight state
    # layer kinds; other layers are left unchanged
    layer_kinds: ClassVar[tuple[LayerKind, ...]] = ALL_LAYER_KINDS
    needs: ClassVar[Needs] = "nothing"  # a property where it depends on options
    size_depends_on_data: ClassVar[bool] = False  # a size forecast is only a lower bound
    rescales_inputs: ClassVar[bool] = False  # scales move between a layer and the previous one
    # weights are trained before they are stored, in ``steps`` steps of ``batch`` examples
    trains: ClassVar[bool] = False
    # the result is a student, which is compared with the original as its teacher
    trains_student: ClassVar[bool] = False
    # whole structures are removed, so that later steps see smaller layers
    removes_structures: ClassVar[bool] = False
    # layers keep the shapes and number formats in which an earlier step has stored them
    keeps_storage: ClassVar[bool] = False
    live_views: ClassVar[tuple[LiveView, ...]] = ()
    layer_previews: ClassVar[LayerPreviews] = "any-step"
    view_notes: ClassVar[dict[str, str]] = {}  # captions below views of a run, by their titles
    # further panels of a run's training curves, named as in ``ResultView``
    curve_panels: ClassVar[tuple[str, ...]] = ()
    counts_epochs: ClassVar[bool] = False  # training length may be given in epochs
    # a layer is calibrated on the outputs of the compressed layers before it
    sequential: ClassVar[bool] = False
    # newer options, and their meaning in recipes stored without them
    meaning_if_absent: ClassVar[dict[str, Any]] = {}
    technique: str

    @model_validator(mode="before")
    @classmethod
    def add_required_options(cls, given: Any) -> Any:
        """Add the options that the given ones require: ``rank: 8`` also sets ``by: rank``.

        Raises ValueError if a required option could take several values, or if two given options
        require different ones.
        """
        required: dict[str, list[Any]] = {}
        for name, other, values in cls.required_options(given) if isinstance(given, dict) else ():
            required[other] = [value for value in required.get(other, values) if value in values]
            if len(required[other]) != 1:
                allowed = " or ".join(map(str, values))
                raise ValueError(
                    f"{option_name(cls, name)} is used only if {option_name(cls, other)} is "
                    f"{allowed}; set {other} too, or remove {name}"
                )
        return (
            given | {other: values[0] for other, values in required.items()} if required else given
        )

    @classmethod
    def required_options(cls, given: dict[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
        """Yield (option, required option, allowed values) for each given option that has no effect
        with the required option's default.
        """
        for name, value in given.items():
            field = cls.model_fields.get(name)
            if field and field.json_schema_extra and value != field.default:
                for other, values in field.json_schema_extra["when"].items():
                    if other not in given and cls.model_fields[other].default not in values:
                        yield name, other, values

    @property
    def group(self) -> int:
        """Number of adjacent weights in a row that share one scale; 0 if the technique has no
        groups.
        """
        return 0

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the other models that the step uses."""
        return ()

    @property
    def size_is_at_most(self) -> bool:
        """True if a size forecast is only an upper bound."""
        return False

    @property
    def revision(self) -> int:
        """Revision of the method for these options. It is increased when the engine's result for
        unchanged options changes, so that stored results are not reused (``Recipe.key``).
        """
        return 1

    @property
    def may_change_nothing(self) -> bool:
        """True if an unchanged layer is a valid result for these options."""
        return False

    def label(self) -> str:
        """Short name of the step with its main options, for charts and lists."""
        return self.title


def option(
    default: Any,
    description: str,
    *,
    title: str,
    advanced: bool = False,
    when: dict[str, list[Any]] | None = None,
    unless: dict[str, list[Any]] | None = None,
    stops: tuple[float, ...] = (),
    choices: tuple[str, ...] = (),
    words: dict[str, str] | None = None,
    **bounds: Any,
) -> Any:
    """Return a pydantic field with the metadata that a form needs.

    ``when`` maps other options to the values for which this one is used, such as ``{"granularity":
    ["group"]}``; ``unless`` maps them to the values for which it is not. ``advanced`` options are
    shown under "More options". ``stops`` are the positions of a slider, ``choices`` are suggestions
    for a free-text option, and ``words`` maps values to their labels.
    """
    extra = {
        "advanced": advanced,
        "when": when or {},
        "unless": unless or {},
        "stops": list(stops),
        "choices": list(choices),
        "words": words or {},
    }
    return Field(default, title=title, description=description, json_schema_extra=extra, **bounds)
