"""Form for data, protocol, device and layers of a run, remembered for each model."""

from typing import Any

import streamlit as st

from engine.config.registry import TECHNIQUES
from engine.errors import PlainError, field_title
from engine.recipe import Layers, Recipe
from engine.recipe.tasks import Calibration, Training
from engine.results.schema.query_results import ModelView
from pages.widgets.queries import show_error
from pages.widgets.state import (
    TASKS,
    default_calibration,
    is_training_step,
    measurement_choices,
    opened_recipes,
    recipe_for,
    task_fields,
    training_choices,
)

DEVICES = ("auto", "cpu", "cuda", "mps")
CHOICES = {"bos": ("auto", "always", "never")}  # of the task's fields
DTYPES = ("auto", "float32", "bfloat16", "float16")


def recipe_form(
    steps: list[dict[str, Any]], view: ModelView, other_fields: dict[str, Any] | None = None
) -> Recipe | None:
    """Draw the "Measured on" form and return the recipe, or None with an error if a choice is not
    allowed.
    """
    # each model has its own widgets
    owner = f"{view.reference}-{opened_recipes()}" if opened_recipes() else view.reference
    chosen, key = measurement_choices(view.reference), f"measure-{owner}"
    with st.expander("Data, protocol and layers"):
        chosen["task"] = data_fields(task_fields(view.reference, view.kind, view.longest), key)
        chosen["calibration"] = calibration_fields(
            default_calibration(chosen["task"]), chosen.get("calibration", {}), key
        )
        chosen["seed"] = st.number_input(
            "Seed",
            0,
            2**32 - 1,
            chosen.get("seed", 0),
            key=f"{key}-seed",
            help="Seed for all random choices in the run.",
        )
        chosen["device"] = choice_field(
            "Device", DEVICES, chosen.get("device", "auto"), f"{key}-device"
        )
        chosen["dtype"] = choice_field(
            "Compute precision (dtype)", DTYPES, chosen.get("dtype", "auto"), f"{key}-dtype"
        )
        chosen["layers"] = layer_fields(chosen.get("layers", Layers().model_dump()), key)
    if learning := [TECHNIQUES[step["technique"]] for step in steps if is_training_step(step)]:
        with st.expander("Training data"):
            training_fields(
                training_choices(view.reference),
                all(config.counts_epochs for config in learning),
                f"training-{owner}",
            )
    try:
        return recipe_for(steps, view.reference, view.kind, view.longest, other_fields)
    except PlainError as error:
        show_error(str(error))
        return None


def training_fields(chosen: dict[str, Any], counts_epochs: bool, key: str) -> None:
    """Draw the fields for training data other than the task's own; all are optional."""
    help_texts = {
        "train": (
            "bundled:NAME, a Hub dataset id, or the path of a .csv or .json file (.txt for "
            "language models). Empty: the task's data."
        ),
        "validation": (
            "Same formats as above. Empty: the validation split, or every tenth example."
        ),
        "unlabelled": (
            "Further examples for distillation. bundled:docs-libraries includes some; labels "
            "of bundled:digits are ignored."
        ),
        "text_column": "Empty: the task's text column.",
        "label_column": "Empty: the task's label column.",
    }
    for name, about in help_texts.items():
        title = field_title(Training, name)
        chosen[name] = st.text_input(
            title, chosen.get(name, ""), key=f"{key}-{name}", help=about
        ).strip()
    if counts_epochs:
        about = (
            "Passes over the training data, instead of a number of steps. 0: uses the steps set "
            "above."
        )
        chosen["epochs"] = st.number_input(
            field_title(Training, "epochs"),
            0.0,
            1000.0,
            value=float(chosen.get("epochs", 0.0)),
            key=f"{key}-epochs",
            help=about,
        )
    else:
        chosen.pop("epochs", None)


def data_fields(task: dict[str, Any], key: str) -> dict[str, Any]:
    """Draw every field of the task."""
    help_texts = {
        "text": (
            "bundled:docs, a Hub dataset id, or the path of a .txt, .csv, .tsv, .json or "
            ".parquet file on this computer; .gz is allowed."
        ),
        "data": (
            "bundled:docs-libraries, bundled:digits, a Hub dataset id, or the path of a "
            ".csv, .tsv, .json or .parquet file; .gz is allowed."
        ),
        "text_column": "Column with the text. Plain text files have none.",
        "text_pair_column": (
            "Column of the second text, for models that compare two texts (NLI, paraphrases). "
            "Empty: single texts. The column is "
            "never guessed; a note names a column that looks like one."
        ),
        "label_column": "Column with the label.",
        "image_column": "Column with the image.",
        "split": "Name of the split in the data, such as test, validation or train.",
        "also": (
            "Further splits or files with the same columns, such as validation, separated by "
            "commas. Each adds time to every run."
        ),
        "context": "Tokens per window. Windows do not overlap.",
        "mask_share": "Share of tokens per window that is masked and predicted (BERT: 0.15).",
        "tokens": "More tokens reduce the standard error but take longer.",
        "bos": (
            "Start each window with this token, as context that is not scored. auto: if the "
            "model's tokenizer adds one. Some "
            "models, such as Gemma, are much worse without it. Applies to calibration windows too."
        ),
        "samples": "More examples reduce the standard error but take longer.",
        "length": "Longer texts are truncated.",
    }
    config = TASKS[task["kind"]]
    return {"kind": task["kind"]} | {
        name: value_field(
            field_title(config, name),
            help_texts[name],
            task[name],
            f"{key}-{name}",
            CHOICES.get(name, ()),
        )
        for name in task
        if name != "kind"
    }


def calibration_fields(
    defaults: dict[str, Any], chosen: dict[str, Any], key: str
) -> dict[str, Any]:
    """Draw the calibration fields and return those that differ from the defaults."""
    help_texts = {
        "text": (
            "Data for statistics during compression, never for evaluation: bundled:docs, a Hub "
            "dataset id, or a file. Classifiers use the examples of their task."
        ),
        "samples": "More samples give more reliable statistics but take longer.",
        "context": "Tokens per example.",
    }
    values = {
        name: value_field(
            field_title(Calibration, name),
            help_texts[name],
            chosen.get(name, defaults[name]),
            f"{key}-calibration-{name}",
        )
        for name in help_texts
    }
    return {name: value for name, value in (chosen | values).items() if value != defaults[name]}


def value_field(title: str, about: str, value: Any, key: str, choices: tuple[str, ...] = ()) -> Any:
    """Draw the widget for a value of its type and return the choice."""
    if choices:
        return st.selectbox(title, choices, choices.index(value), key=key, help=about)
    if isinstance(value, float):
        return st.number_input(title, 0.01, 0.99, value, 0.05, key=key, help=about)
    if isinstance(value, int):
        return st.number_input(title, 1, value=value, key=key, help=about)
    return st.text_input(title, value, key=key, help=about).strip()


def choice_field(title: str, choices: tuple[str, ...], chosen: str, key: str) -> str:
    return st.selectbox(title, choices, choices.index(chosen), key=key)


def layer_fields(layers: dict[str, Any], key: str) -> dict[str, list[str]]:
    return {
        name: names_field(field_title(Layers, name), layers[name], f"{key}-{name}")
        for name in ("skip", "include")
    }


def names_field(title: str, names: list[str], key: str) -> list[str]:
    """Draw a text field for names or patterns, separated by commas, and return them."""
    given = st.text_input(
        title,
        ", ".join(names),
        key=key,
        help="Names or globs such as *.mlp.*, separated by commas.",
    )
    return [name.strip() for name in given.split(",") if name.strip()]
