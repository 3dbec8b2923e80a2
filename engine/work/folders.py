"""A model's folder on this disk, found or fetched, and checked before anything heavy is loaded."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from engine.catalog.models import BUNDLED, ModelName
from engine.errors import PlainError
from engine.recipe import identity
from engine.work.hub import downloaded

Kind = Literal["language-modeling", "text-classification", "image-classification"]
Dtype = Literal["float64", "float32", "bfloat16", "float16"]
BARE = ("ForMaskedLM", "ForPreTraining", "Model")  # encoders: their head is another than a classifier's, or they have none
KINDS: dict[str, Kind] = {
    "ForCausalLM": "language-modeling",
    "LMHeadModel": "language-modeling",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
}
CLASSES: dict[Kind, dict[str, Any]] = {  # model_type -> class, by what the model does
    "language-modeling": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "text-classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "image-classification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
}
CLASSIFIERS: tuple[Kind, ...] = ("text-classification", "image-classification")
STORED: dict[str, Dtype] = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
WEIGHTS, INDEX, PACKED = "model.safetensors", "model.safetensors.index.json", "compression.json"


@dataclass(frozen=True)
class Folder:
    """A model on this disk whose configuration and weight files have been checked."""

    path: Path
    reference: str  # what the user wrote
    revision: str  # Hub commit, or 12 hex digits of the files' names, sizes and times
    architecture: str
    kind: Kind
    files: tuple[Path, ...]  # of the weights
    size_bytes: int  # of the weights
    packed: bool  # saved by this engine, compressed
    dtype: Dtype  # most weights are stored in this
    notes: tuple[str, ...] = ()  # what was put right without asking, a sentence each
    bare: bool = False  # an encoder whose file has no head for its kind

    def __str__(self) -> str:
        """The model's name as messages quote it."""
        return quoted(self.reference)


def resolve(reference: str, report: Callable[[str], None] = lambda text: None, head_for: Kind | None = None) -> Folder:
    """The checked folder of ``bundled:NAME``, a directory, or a Hub id with an optional @revision.

    ``report`` is told how far a download is. With ``head_for``, a bare encoder will do, which is to get a head for that kind.
    Raises PlainError when there is no such model or it cannot be used here.
    """
    path, revision = located(reference, report)
    try:
        return checked(path, reference, revision, head_for)
    except OSError as error:
        raise PlainError(f"The files of {quoted(reference)} cannot be read: {error.strerror or 'unknown reason'}.") from None


def quoted(text: str) -> str:
    return repr(text.strip()[:120])


def located(reference: str, report: Callable[[str], None]) -> tuple[Path, str]:
    """Where the model lies, and its revision."""
    name = parsed(reference)
    if name.kind == "hub":
        path = downloaded(name, report)
        return path, path.name  # .../snapshots/<commit>
    path = BUNDLED[name.name].folder if name.kind == "bundled" else Path(name.name)
    if not path.is_dir():
        raise PlainError(f"The bundled model {quoted(name.name)} is missing from assets/models; fetch the project again, completely.")
    return path, hashlib.sha256(identity(str(path)).encode()).hexdigest()[:12]


def parsed(reference: str) -> ModelName:
    try:
        name = ModelName.parse(reference)
        if name.kind == "hub" and Path(reference.strip()).expanduser().is_file():
            raise PlainError(f"{quoted(reference)} is a file; give the directory it lies in.")
        return name
    except (OSError, RuntimeError):  # a path too long for the system, ~somebody who is unknown
        raise PlainError(f"{quoted(reference)} is no model: give bundled:NAME, an existing directory, or a Hub id.") from None


def checked(path: Path, reference: str, revision: str, head_for: Kind | None = None) -> Folder:
    """Raises PlainError with the first thing that would keep the model from working."""
    name = quoted(reference)
    if not any(path.iterdir()):
        raise PlainError(f"The directory {name} is empty; give one with config.json and *.safetensors.")
    config = json_in(path / "config.json", name)
    architecture = architecture_of(config, name)
    bare = head_for in CLASSIFIERS and known_kind(architecture) is None and architecture.endswith(BARE)
    architecture, kind = (headed(config, architecture, head_for), head_for) if bare else (architecture, kind_of(architecture, name))
    packed = (path / PACKED).is_file()
    refuse_unusable(config, architecture, kind, name)
    files = weight_files(path, name)
    dtype = stored_dtype(files, name) if not packed else config.get("dtype") or "float32"
    size_bytes = sum(file.stat().st_size for file in files)
    return Folder(path, reference, revision, architecture, kind, files, size_bytes, packed, dtype, tuple(notes_on(config)), bare)


def json_in(file: Path, name: str) -> dict[str, Any]:
    if not file.is_file():
        raise PlainError(f"{name} has no {file.name}, so it is no model in the Hugging Face format; give a directory or Hub id with one.")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise PlainError(f"The {file.name} of {name} is not valid JSON; fetch or save the model again.") from None
    if not isinstance(content, dict):
        raise PlainError(f"The {file.name} of {name} must be a JSON object and is a {type(content).__name__}; fetch or save the model again.")
    return content


def architecture_of(config: dict[str, Any], name: str) -> str:
    names = config.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        raise PlainError(f"The config.json of {name} does not say what the model is; it needs architectures, such as ['LlamaForCausalLM'].")
    return names[0]


def known_kind(architecture: str) -> Kind | None:
    return next((kind for suffix, kind in KINDS.items() if architecture.endswith(suffix)), None)


def headed(config: dict[str, Any], architecture: str, kind: Kind) -> str:
    """The class of its family that has a head of this kind; ``architecture`` where transformers has none."""
    return str(CLASSES[kind].get(config.get("model_type"), architecture))


def kind_of(architecture: str, name: str) -> Kind:
    kind = known_kind(architecture)
    if kind is None:
        allowed = "language models (ForCausalLM), text classifiers (ForSequenceClassification) and image classifiers (ForImageClassification)"
        raise PlainError(f"{name} is a {architecture[:120]}; only {allowed} can be compressed here.")
    return kind


def refuse_unusable(config: dict[str, Any], architecture: str, kind: Kind, name: str) -> None:
    """Compressed by others, code of its own, or unknown to transformers."""
    family = str(config.get("model_type"))
    if quantization := config.get("quantization_config") or config.get("compression_config"):
        method = quantization.get("quant_method", "quantization") if isinstance(quantization, dict) else "quantization"
        raise PlainError(f"{name} is already compressed ({str(method)[:80]}); start from the model it was made from, in 16 or 32 bits.")
    if config.get("auto_map") and architecture not in str(CLASSES[kind].get(family)):
        raise PlainError(f"{name} needs code of its own (auto_map), which is never run here; choose a model that transformers has built in.")
    if family not in CONFIG_MAPPING_NAMES:
        raise PlainError(f"{name} has the model type {family[:80]!r}, which the installed transformers does not know; try a newer version.")
    if family not in CLASSES[kind]:
        raise PlainError(f"{name} has the model type {family[:80]!r}, for which transformers has no {kind} model; check its config.json.")


def weight_files(path: Path, name: str) -> tuple[Path, ...]:
    """The safetensors files that make up the model, each of the length its header promises."""
    files = (path / WEIGHTS,) if (path / WEIGHTS).is_file() else indexed_files(path, name)
    if not files:
        found = next((file.name for pattern in ("*.bin", "*.pt", "*.h5") for file in path.glob(pattern)), None)
        has = f"only {found}" if found else "no model.safetensors"
        raise PlainError(f"{name} has {has}; weights are read from safetensors alone, since a pickle can run code: save it with save_pretrained.")
    return files


def indexed_files(path: Path, name: str) -> tuple[Path, ...]:
    if not (path / INDEX).is_file():
        return ()
    places = json_in(path / INDEX, name).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) and Path(file).name == file for file in places.values()):
        raise PlainError(f"The {INDEX} of {name} must map weights to files beside it; fetch or save the model again.")
    files = tuple(path / file for file in sorted(set(places.values())))
    if missing := next((file.name for file in files if not file.is_file()), None):
        raise PlainError(f"{name} lacks the weight file {missing[:120]} that its index names; fetch the model again, completely.")
    return files


def stored_dtype(files: tuple[Path, ...], name: str) -> Dtype:
    """What most bytes are stored in. Raises PlainError when that is no floating point number of 16 bits or more."""
    stored: Counter[str] = Counter()
    for file in files:
        for entry in header_of(file, name).values():
            begin, end = entry["data_offsets"]
            stored[entry["dtype"]] += end - begin
    most = stored.most_common(1)[0][0] if stored else "nothing"
    if most not in STORED:
        raise PlainError(f"The weights of {name} are stored as {most[:20]}; start from a model in 16, 32 or 64 bit floating point.")
    return STORED[most]


def header_of(file: Path, name: str) -> dict[str, Any]:
    """What a safetensors file says it holds: dtype, shape and data_offsets by tensor. Reads no weights."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        text = stream.read(length) if length <= size - 8 else b""
    if start == b"version ":
        raise PlainError(f"{file.name} of {name} is a Git LFS pointer, not the weights; run git lfs pull in its directory.")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        due = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise PlainError(f"{file.name} of {name} is cut short or no safetensors file; fetch the model again.") from None
    if size != due:
        raise PlainError(f"{file.name} of {name} has {size:,} bytes where its header promises {due:,}; fetch the model again.")
    return header


def foreign_ids(config: dict[str, Any]) -> dict[str, list[int]]:
    """Ids of special tokens that lie outside the vocabulary, by name."""
    size = config.get("vocab_size")
    if not isinstance(size, int):
        return {}
    ids = {key: value if isinstance(value, list) else [value] for key, value in config.items() if key.endswith("_token_id")}
    outside = {key: [i for i in values if isinstance(i, int) and not 0 <= i < size] for key, values in ids.items()}
    return {key: values for key, values in outside.items() if values}


def notes_on(config: dict[str, Any]) -> list[str]:
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    return [
        f"{key} {', '.join(map(str, ids))} lies outside the vocabulary of {text['vocab_size']:,} and is ignored."
        for key, ids in foreign_ids(text).items()
    ]
