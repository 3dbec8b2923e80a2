"""A model's folder on this disk, found or fetched, and checked before anything heavy is loaded."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from engine.errors import PlainError
from engine.events import Report
from engine.models.config_check import TensorTotals, check_counts, header_totals
from engine.models.hub import download_model
from engine.recipe import file_identity
from engine.recipe.model_files import complete_shards, folder_without_config, folder_without_weights
from engine.recipe.model_names import BUNDLED_MODELS, ModelName
from engine.runtime.local_paths import check_links

Kind = Literal[
    "language-modeling", "masked-language-modeling", "text-classification", "image-classification"
]
Dtype = Literal["float64", "float32", "bfloat16", "float16"]
# encoders: their head is another than a classifier's, or they have none
BARE = ("ForMaskedLM", "ForPreTraining", "Model")
KINDS: dict[str, Kind] = {
    "ForCausalLM": "language-modeling",
    "LMHeadModel": "language-modeling",
    "ForMaskedLM": "masked-language-modeling",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
}
CLASSES: dict[Kind, dict[str, Any]] = {  # model_type -> class, by what the model does
    "language-modeling": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked-language-modeling": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "text-classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "image-classification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
}
# model_type -> class; of images or sound, with text
MULTIMODAL: dict[str, Any] = modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
CLASSIFIERS: tuple[Kind, ...] = ("text-classification", "image-classification")
SAFETENSORS_DTYPES: dict[str, Dtype] = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
}
# limit of safetensors itself; also used for other files that describe a model
MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 1_000_000  # per file
DESCRIPTION_SUFFIXES = (".json", ".txt", ".model", ".jinja")
WEIGHTS, INDEX, PACKED = "model.safetensors", "model.safetensors.index.json", "compression.json"


@dataclass(frozen=True)
class ModelSource:
    """A model on this disk whose configuration and weight files have been checked."""

    path: Path
    reference: str  # what the user wrote
    revision: str  # Hub commit, or 12 hex digits of the files' names, sizes and times
    architecture: str
    kind: Kind
    files: tuple[Path, ...]  # of the weights
    size_bytes: int  # of the weights
    packed: bool  # saved by this engine, compressed
    dtype: Dtype  # dtype of most stored weights
    notes: tuple[str, ...] = ()  # automatic corrections, one sentence each
    without_head: bool = False  # an encoder whose file has no head for its kind
    multimodal: bool = False  # evaluated on text; other parts, such as for images, are unchanged

    def __str__(self) -> str:
        """The model's name in messages."""
        return short_repr(self.reference)


def resolve_model(
    reference: str, report: Report = lambda event: None, head_for: Kind | None = None
) -> ModelSource:
    """Return the checked folder of ``bundled:NAME``, a directory, or a Hub id with an optional
    @revision.

    ``report`` receives the progress of a download. With ``head_for``, an encoder without a head is
    accepted, to which a head of that kind is added.

    Raises PlainError if the model does not exist or cannot be used here.
    """
    path, revision = locate_model(reference, report)
    try:
        return checked_source(path, reference, revision, head_for)
    except OSError as error:
        raise PlainError(
            f"The files of {short_repr(reference)} cannot be read: "
            f"{error.strerror or 'unknown reason'}."
        ) from None


def short_repr(text: str) -> str:
    return repr(text.strip()[:120])


def locate_model(reference: str, report: Report) -> tuple[Path, str]:
    """Path of the model, and its revision."""
    name = parse_model_name(reference)
    if name.kind == "hub":
        path = download_model(name, report)
        return path, path.name  # .../snapshots/<commit>
    path = BUNDLED_MODELS[name.name].folder if name.kind == "bundled" else Path(name.name)
    if not path.is_dir():
        raise PlainError(
            f"The bundled model {short_repr(name.name)} is missing from assets/models; fetch the "
            "project again, completely."
        )
    if name.kind == "directory":
        check_links(path)
    return path, hashlib.sha256(
        file_identity(str(path)).encode("utf-8", "surrogatepass")
    ).hexdigest()[:12]


def parse_model_name(reference: str) -> ModelName:
    try:
        return ModelName.parse(reference)
    # the path is too long, or names the home of an unknown user
    except (OSError, RuntimeError):
        raise PlainError(
            f"{short_repr(reference)} is not a model; give bundled:NAME, an existing directory, or "
            "a Hub id."
        ) from None


def checked_source(
    path: Path, reference: str, revision: str, head_for: Kind | None = None
) -> ModelSource:
    """Return the source of a model after checking that it can be loaded.

    Raises PlainError with the first reason why the model could not be used.
    """
    name = short_repr(reference)
    if not any(path.iterdir()):
        raise PlainError(
            f"The directory {name} is empty; give one with config.json and *.safetensors."
        )
    if not (path / "config.json").is_file():
        raise PlainError(folder_without_config(path, name))
    check_file_sizes(path, name)
    config = read_json(path / "config.json", name)
    architecture = architecture_of(config, name)
    without_head = (
        head_for in CLASSIFIERS
        and known_kind(architecture) in (None, "masked-language-modeling")
        and architecture.endswith(BARE)
    )
    architecture, kind = (
        (architecture_with_head(config, architecture, head_for), head_for)
        if without_head
        else (architecture, task_kind(config, architecture, name))
    )
    packed = (path / PACKED).is_file()
    check_supported(config, architecture, kind, name)
    files = weight_files(path, name)
    check_counts(config, tensor_totals(files, name), name)
    dtype = stored_dtype(files, name) if not packed else config.get("dtype") or "float32"
    size_bytes = sum(file.stat().st_size for file in files)
    notes, multimodal = tuple(config_notes(config)), is_multimodal(config, architecture)
    return ModelSource(
        path,
        reference,
        revision,
        architecture,
        kind,
        files,
        size_bytes,
        packed,
        dtype,
        notes,
        without_head,
        multimodal,
    )


def check_file_sizes(path: Path, name: str) -> None:
    """Check the sizes of files next to the weights, such as a tokenizer or an index.

    Raises PlainError if one is too large for a library to read.
    """
    for file in path.iterdir():
        if (
            file.suffix in DESCRIPTION_SUFFIXES
            and file.is_file()
            and (size := file.stat().st_size) > MAX_HEADER_BYTES
        ):
            raise PlainError(
                f"{file.name[:120]} of {name} has {size:,} bytes; at most "
                f"{MAX_HEADER_BYTES:,} are read, download the model again."
            )


def read_json(file: Path, name: str) -> dict[str, Any]:
    if not file.is_file():
        raise PlainError(
            f"{name} has no {file.name}, so it is not a model in the Hugging Face format; give "
            "a directory or Hub id with one."
        )
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise PlainError(
            f"The {file.name} of {name} is not valid JSON; fetch or save the model again."
        ) from None
    if not isinstance(content, dict):
        raise PlainError(
            f"The {file.name} of {name} must be a JSON object and is a "
            f"{type(content).__name__}; fetch or save the model again."
        )
    return content


def architecture_of(config: dict[str, Any], name: str) -> str:
    names = config.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        raise PlainError(
            f"The config.json of {name} does not say what the model is; it needs "
            "architectures, such as ['LlamaForCausalLM']."
        )
    return names[0]


def known_kind(architecture: str) -> Kind | None:
    return next((kind for suffix, kind in KINDS.items() if architecture.endswith(suffix)), None)


def architecture_with_head(config: dict[str, Any], architecture: str, kind: Kind) -> str:
    """The class of the same family with a head of this kind; ``architecture`` if transformers has
    none.
    """
    return str(CLASSES[kind].get(config.get("model_type"), architecture))


def is_multimodal(config: dict[str, Any], architecture: str) -> bool:
    """Return True if the class also reads images or sound, and its language model is a decoder with
    its own configuration.
    """
    text = config.get("text_config")
    decodes = isinstance(text, dict) and not any(
        fields.get("is_encoder_decoder") for fields in (config, text)
    )
    return decodes and MULTIMODAL.get(config.get("model_type")) == architecture


def task_kind(config: dict[str, Any], architecture: str, name: str) -> Kind:
    kind = "language-modeling" if is_multimodal(config, architecture) else known_kind(architecture)
    if kind is None:
        pair = config.get("is_encoder_decoder") or architecture.endswith("ForConditionalGeneration")
        description = (
            f"an encoder-decoder model ({architecture[:120]}), which writes one text for another"
            if pair
            else f"a {architecture[:120]}"
        )
        raise PlainError(
            f"{name} is {description}; only language models (ForCausalLM, or "
            "ForConditionalGeneration with a text_config), masked language models (ForMaskedLM), "
            "text classifiers (ForSequenceClassification) and image classifiers "
            "(ForImageClassification) can be compressed here."
        )
    return kind


def check_supported(config: dict[str, Any], architecture: str, kind: Kind, name: str) -> None:
    """Check that a model's configuration is one that can be compressed here.

    Raises PlainError for models compressed by other tools, with custom code, or unknown to
    transformers.
    """
    family = str(config.get("model_type"))
    if quantization := config.get("quantization_config") or config.get("compression_config"):
        method = (
            quantization.get("quant_method", "quantization")
            if isinstance(quantization, dict)
            else "quantization"
        )
        raise PlainError(
            f"{name} is already compressed ({str(method)[:80]}); start from the model it was "
            "made from, in 16 or 32 bits."
        )
    classes = MULTIMODAL if is_multimodal(config, architecture) else CLASSES[kind]
    if config.get("auto_map") and architecture not in str(classes.get(family)):
        raise PlainError(
            f"{name} needs custom code (auto_map), which is never run here; choose a "
            "model that transformers has built in."
        )
    if family not in CONFIG_MAPPING_NAMES:
        raise PlainError(
            f"{name} has the model type {family[:80]!r}, which the installed transformers "
            "does not know; try a newer version."
        )
    if family not in classes:
        raise PlainError(
            f"{name} has the model type {family[:80]!r}, for which transformers has no "
            f"{kind} model; check its config.json."
        )


def weight_files(path: Path, name: str) -> tuple[Path, ...]:
    """The safetensors files of the model. Raises PlainError if one does not have the length that
    its header states.
    """
    files = (
        (path / WEIGHTS,)
        if (path / WEIGHTS).is_file()
        else indexed_files(path, name) or complete_shards(path)
    )
    if not files:
        raise PlainError(folder_without_weights(path, name))
    return files


def indexed_files(path: Path, name: str) -> tuple[Path, ...]:
    if not (path / INDEX).is_file():
        return ()
    weight_map = read_json(path / INDEX, name).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in weight_map.values()
    ):
        raise PlainError(
            f"The {INDEX} of {name} must map weights to files next to it; fetch or save the "
            "model again."
        )
    files = tuple(path / file for file in sorted(set(weight_map.values())))
    if missing := next((file.name for file in files if not file.is_file()), None):
        raise PlainError(
            f"{name} lacks the weight file {missing[:120]} that its index names; fetch the "
            "model again, completely."
        )
    return files


def stored_dtype(files: tuple[Path, ...], name: str) -> Dtype:
    """Dtype of most stored bytes. Raises PlainError if it is not a floating-point dtype of 16 bits
    or more.
    """
    stored: Counter[str] = Counter()
    for file in files:
        status = file.stat()
        stored.update(_bytes_by_dtype(file, name, status.st_size, status.st_mtime_ns))
    most_common = stored.most_common(1)[0][0] if stored else "nothing"
    if most_common not in SAFETENSORS_DTYPES:
        raise PlainError(
            f"The weights of {name} are stored as {most_common[:20]}; start from a model in 16, 32 "
            "or 64 bit floating point."
        )
    return SAFETENSORS_DTYPES[most_common]


@lru_cache(maxsize=1024)
def _bytes_by_dtype(file: Path, name: str, size: int, changed: int) -> Counter[str]:
    """Totals of one file, cached until it changes, since each query about a model resolves its
    folder.
    """
    stored: Counter[str] = Counter()
    for entry in read_header(file, name).values():
        begin, end = entry["data_offsets"]
        stored[entry["dtype"]] += end - begin
    return stored


def read_header(file: Path, name: str) -> dict[str, Any]:
    """Header of a safetensors file: dtype, shape and data_offsets by tensor. Reads no weights."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        text = stream.read(length) if length <= min(size - 8, MAX_HEADER_BYTES) else b""
    if start == b"version ":
        raise PlainError(
            f"{file.name} of {name} is a Git LFS pointer, not the weights; run git lfs pull "
            "in its directory."
        )
    if MAX_HEADER_BYTES < length <= size - 8 or text.count(b"data_offsets") > MAX_TENSORS:
        limits = f"{MAX_HEADER_BYTES:,} bytes and {MAX_TENSORS:,} tensors"
        raise PlainError(
            f"{file.name} of {name} has a header of {length:,} bytes; at most {limits} are "
            "read, download the model again."
        )
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        if not all(map(is_tensor_entry, header.values())):
            raise ValueError("an entry that is not valid in safetensors")
        expected_bytes = (
            8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise PlainError(
            f"{file.name} of {name} is cut short or no safetensors file; download the model again."
        ) from None
    if size != expected_bytes:
        raise PlainError(
            f"{file.name} of {name} has {size:,} bytes, but its header states "
            f"{expected_bytes:,}; download the model again."
        )
    return header


def is_tensor_entry(entry: Any) -> bool:
    """Return True if a header entry has a dtype, shape and data_offsets of valid types."""
    if not (isinstance(entry, dict) and isinstance(entry.get("dtype"), str)):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not all(
        isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)
        for numbers in (shape, offsets)
    ):
        return False
    return len(offsets) == 2 and offsets[0] <= offsets[1]


def tensor_totals(files: tuple[Path, ...], name: str) -> TensorTotals:
    """Tensors and parameters in all weight files, from their headers; cached until a file
    changes.
    """
    counted = (
        _file_totals(file, name, status.st_size, status.st_mtime_ns)
        for file in files
        for status in (file.stat(),)
    )
    return sum(counted, TensorTotals())


@lru_cache(maxsize=1024)
def _file_totals(file: Path, name: str, size: int, changed: int) -> TensorTotals:
    return header_totals(read_header(file, name).values())


def ids_outside_vocabulary(config: dict[str, Any]) -> dict[str, list[int]]:
    """Special-token ids outside the vocabulary, by name."""
    size = config.get("vocab_size")
    if not isinstance(size, int):
        return {}
    ids = {
        key: value if isinstance(value, list) else [value]
        for key, value in config.items()
        if key.endswith("_token_id")
    }
    foreign = {
        key: [i for i in values if isinstance(i, int) and not 0 <= i < size]
        for key, values in ids.items()
    }
    return {key: values for key, values in foreign.items() if values}


def languages_without_default(config: dict[str, Any]) -> list[str]:
    """Languages of a model with adapters for each (X-MOD) if it has no default, without which it
    cannot read text.
    """
    names = config.get("languages")
    lacks_default = "adapter_reduction_factor" in config and not config.get("default_language")
    return (
        list(names)
        if lacks_default
        and isinstance(names, list | tuple)
        and all(isinstance(name, str) for name in names)
        else []
    )


def config_notes(config: dict[str, Any]) -> list[str]:
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    read_as = [
        (
            f"Text is read as {name}, the first of the model's languages; set default_language "
            "in config.json for another."
        )
        for name in languages_without_default(config)[:1]
    ]
    return read_as + [
        (
            f"{key} {', '.join(map(str, ids))} lies outside the vocabulary of "
            f"{text['vocab_size']:,} and is ignored."
        )
        for key, ids in ids_outside_vocabulary(text).items()
    ]
