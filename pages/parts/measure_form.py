"""How quality is measured, and where: data, protocol, device, layers. Remembered for each model."""

from typing import Any

import streamlit as st

from engine.catalog import TECHNIQUES
from engine.errors import PlainError
from engine.recipe import Layers, Recipe
from engine.results.answers import ModelView
from pages.parts.plainly import said
from pages.parts.state import calibration_beside, choices_for, opened_recipes, recipe_for, task_for, training_for, trains

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def measured_recipe(steps: list[dict[str, Any]], view: ModelView, beside: dict[str, Any] | None = None) -> Recipe | None:
    """The recipe with everything chosen under "Measured on". None, with a sentence, where a choice is not allowed."""
    mine = f"{view.reference}-{opened_recipes()}" if opened_recipes() else view.reference  # a widget of one model must not answer for another
    chosen, key = choices_for(view.reference), f"measure-{mine}"
    with st.expander("Measured on, and which layers"):
        chosen["task"] = data_fields(task_for(view.reference, view.kind, view.longest), key)
        chosen["calibration"] = calibration_fields(calibration_beside(chosen["task"]), chosen.get("calibration", {}), key)
        chosen["seed"] = st.number_input("Seed", 0, 2**32 - 1, chosen.get("seed", 0), key=f"{key}-seed", help="Of everything that is drawn by lot.")
        chosen["device"] = one_of("Device", DEVICES, chosen.get("device", "auto"), f"{key}-device")
        chosen["dtype"] = one_of("Computing precision (dtype)", DTYPES, chosen.get("dtype", "auto"), f"{key}-dtype")
        chosen["layers"] = layer_fields(chosen.get("layers", Layers().model_dump()), key)
    if learning := [TECHNIQUES[step["technique"]] for step in steps if trains(step)]:
        with st.expander("Learns from"):
            training_fields(training_for(view.reference), all(how.counts_epochs for how in learning), f"training-{mine}")
    try:
        return recipe_for(steps, view.reference, view.kind, view.longest, beside)
    except PlainError as error:
        said(str(error))
        return None


def training_fields(chosen: dict[str, Any], counts_epochs: bool, key: str) -> None:
    """Other data than the task's own, all of it optional."""
    words = {
        "train": (
            "Train on",
            "Empty: the task's own. Or bundled:NAME, a Hub dataset id, the path of a .csv or .json file; of a language model, a .txt.",
        ),
        "validation": ("Judge meanwhile by", "Empty: the validation split, or every tenth example. Or data as above."),
        "unlabelled": (
            "Examples without labels",
            "For a student that listens to its teacher; bundled:docs-libraries has some beside its labelled ones, and labels of bundled:digits are "
            "not looked at.",
        ),
        "text_column": ("Their text column", "Empty: as in the data that quality is measured on."),
        "label_column": ("Their label column", "Empty: as in the data that quality is measured on."),
    }
    for name, (title, about) in words.items():
        chosen[name] = st.text_input(title, chosen.get(name, ""), key=f"{key}-{name}", help=about).strip()
    if counts_epochs:
        about = "How often each example is learnt from, in place of a number of steps. 0: as many steps as set above."
        chosen["epochs"] = st.number_input("Epochs", 0.0, 1000.0, value=float(chosen.get("epochs", 0.0)), key=f"{key}-epochs", help=about)
    else:
        chosen.pop("epochs", None)


def data_fields(task: dict[str, Any], key: str) -> dict[str, Any]:
    """Every field of the task: texts as text, numbers as numbers."""
    words = {
        "text": ("Text", "bundled:docs, a Hub dataset id, or the path of a .txt, .csv, .json or .parquet file on this computer."),
        "data": ("Labelled data", "bundled:docs-libraries, bundled:digits, a Hub dataset id, or the path of a .csv, .json or .parquet file."),
        "text_column": ("Text column", "Name of the column that holds the text; plain text files have none."),
        "label_column": ("Label column", "Name of the column that holds the label."),
        "image_column": ("Image column", "Name of the column that holds the image."),
        "split": ("Split", "test, validation or train, as the data names them."),
        "also": (
            "Also measured on",
            "Further splits or files of the same columns, such as validation, separated by commas; empty: none. Each adds its time to every run.",
        ),
        "context": ("Window (context, tokens)", "Tokens the model sees at once; windows do not overlap."),
        "tokens": ("Tokens to read", "More tokens, steadier numbers, longer runs."),
        "samples": ("Examples to read", "More examples, steadier numbers, longer runs."),
        "length": ("Longest text (tokens)", "Longer texts are cut."),
    }
    return {"kind": task["kind"]} | {name: field(words[name], task[name], f"{key}-{name}") for name in task if name != "kind"}


def calibration_fields(usual: dict[str, Any], chosen: dict[str, Any], key: str) -> dict[str, Any]:
    """What techniques look at, and errors are judged on; of it what is not as usual."""
    words = {
        "text": (
            "Calibration text",
            "Looked at while compressing, never measured on: bundled:docs, a Hub dataset id, or a file. Classifiers take their own examples.",
        ),
        "samples": ("Calibration examples", "More see more, and take longer."),
        "context": ("Calibration window (tokens)", "Tokens of one example."),
    }
    said = {name: field(words[name], chosen.get(name, usual[name]), f"{key}-calibration-{name}") for name in words}
    return {name: value for name, value in (chosen | said).items() if value != usual[name]}


def field(words: tuple[str, str], value: Any, key: str) -> Any:
    title, about = words
    if isinstance(value, int):
        return st.number_input(title, 1, value=value, key=key, help=about)
    return st.text_input(title, value, key=key, help=about).strip()


def one_of(title: str, choices: tuple[str, ...], chosen: str, key: str) -> str:
    return st.selectbox(title, choices, choices.index(chosen), key=key)


def layer_fields(layers: dict[str, Any], key: str) -> dict[str, list[str]]:
    return {
        "skip": names_in("Layers to skip", layers["skip"], f"{key}-skip"),
        "include": names_in("Embeddings to include", layers["include"], f"{key}-include"),
    }


def names_in(title: str, names: list[str], key: str) -> list[str]:
    """Names or globs, separated by commas."""
    given = st.text_input(title, ", ".join(names), key=key, help="Names or globs such as *.mlp.*, separated by commas.")
    return [name.strip() for name in given.split(",") if name.strip()]
