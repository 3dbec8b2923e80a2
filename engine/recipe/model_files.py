"""Messages for files and folders that are not a model in the Hugging Face format.

They name what the files are and what to do. Only small JSON files are opened.
"""

import json
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

FROM_PYTORCH = "load it in PyTorch and save the model with save_pretrained"
FORMATS = {  # suffix -> format, what to do
    ".gguf": ("a GGUF file (llama.cpp)", "give the model that it was converted from"),
    ".ggml": ("a GGML file (old llama.cpp format)", "give the model that it was converted from"),
    ".onnx": ("an ONNX graph", "give the model that it was exported from"),
    ".bin": (
        "a pickle, which can run code",
        "load it in transformers and save it with save_pretrained",
    ),
    ".pt": ("a pickle, which can run code", FROM_PYTORCH),
    ".pth": ("a pickle, which can run code", FROM_PYTORCH),
    ".ckpt": ("a training checkpoint, which can run code", FROM_PYTORCH),
    ".h5": (
        "a TensorFlow weight file",
        "load it in transformers 4 with from_tf=True and save it with save_pretrained",
    ),
    ".msgpack": (
        "a Flax weight file",
        "load it in transformers 4 with from_flax=True and save it with save_pretrained",
    ),
    ".tflite": ("a TensorFlow Lite model", "give the model that it was converted from"),
    ".pb": ("a TensorFlow graph", "give the model that it was exported from"),
    ".zip": ("an archive", "unpack it and give the directory"),
    ".tar": ("an archive", "unpack it and give the directory"),
    ".gz": ("an archive", "unpack it and give the directory"),
}
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
NEEDED = "a directory with config.json and *.safetensors, or a Hub id"
MAX_ENTRIES, MAX_NAMED, MAX_JSON_BYTES = 500, 3, 1 << 20


def file_refusal(path: Path, name: str) -> str:
    """Message for a file that is not a model, by its first bytes or suffix; ``name`` is shown as
    given.
    """
    if (suffix := content_suffix(path)) not in FORMATS:
        return f"The model {name} is a file; give the directory that contains it."
    kind, advice = FORMATS[suffix]
    return f"The model {name} is {kind}, and models are read from {NEEDED}: {advice}."


def content_suffix(path: Path) -> str:
    """Suffix of the format that the first bytes show, otherwise that of the name."""
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError:
        magic = b""
    return {b"GGUF": ".gguf", b"ggml": ".ggml", b"lmgg": ".ggml"}.get(magic, path.suffix.lower())


def folder_without_config(path: Path, name: str) -> str:
    """Message for a folder without config.json."""
    files = entries(path)
    names = {file.name for file in files}
    if "adapter_config.json" in names:
        return adapter_refusal(path, name)
    if "model_index.json" in names:
        return (
            f"{name} is a diffusers pipeline, which is not supported; give a language model or "
            f"classifier as {NEEDED}."
        )
    if other := other_weights(files):
        return f"{name} has no config.json and contains {other}"
    if any(name.endswith(".safetensors") for name in names):
        return (
            f"{name} has weights but no config.json; add the config.json that was saved with them."
        )
    if models := folders_with_config(files):
        more = f" and {len(models) - MAX_NAMED} more" if len(models) > MAX_NAMED else ""
        listed = f"{', '.join(models[:MAX_NAMED])}{more}"
        return f"{name} has no config.json, but its folders {listed} do; give one of them."
    if names & {*TOKENIZERS}:
        return f"{name} contains a tokenizer but no model (no config.json); give {NEEDED}."
    return f"{name} has no config.json, so it is not a Hugging Face model; give {NEEDED}."


def folder_without_weights(path: Path, name: str) -> str:
    """Message for a folder with config.json but without model.safetensors."""
    files = entries(path)
    if any(file.name == "adapter_config.json" for file in files):
        return adapter_refusal(path, name)
    weights = sorted(file.name for file in files if file.suffix == ".safetensors")
    if shards := [match for file in weights if (match := SHARD.fullmatch(file))]:
        return shards_refusal(shards, name)
    if weights:
        return (
            f"{name} has no model.safetensors but {weights[0][:120]}; rename it to "
            "model.safetensors if it contains all weights, or save the model again with "
            "save_pretrained."
        )
    if other := other_weights(files):
        return f"{name} has {other}"
    return (
        f"{name} has a config.json but no model.safetensors, the only weight format that is "
        "read; save the model with save_pretrained."
    )


def complete_shards(path: Path) -> tuple[Path, ...]:
    """Return the files model-00001-of-0000N.safetensors to the last, or none if any is missing."""
    matches = [match for file in entries(path) if (match := SHARD.fullmatch(file.name))]
    shards = [match for match in matches if match["stem"] == "model"]
    numbers = sorted(int(match["number"]) for match in shards)
    counts = {int(match["count"]) for match in shards}
    complete = len(counts) == 1 and numbers == list(range(1, counts.pop() + 1))
    return tuple(sorted(path / match[0] for match in shards)) if complete else ()


def shards_refusal(shards: list[re.Match[str]], name: str) -> str:
    """Message for sharded weights with missing files or without an index."""
    numbers = {int(shard["number"]) for shard in shards}
    count, stem = int(shards[0]["count"]), shards[0]["stem"][:60]
    absent = [number for number in range(1, count + 1) if number not in numbers][:MAX_NAMED]
    files = ", ".join(f"{stem}-{number:05}-of-{count:05}.safetensors" for number in absent)
    lacks = f"lacks {files}" if absent else "has no model.safetensors.index.json"
    return f"{name} has {len(numbers)} of {count} shards and {lacks}; download the model again."


def adapter_refusal(path: Path, name: str) -> str:
    """Message for a folder with an adapter instead of a model."""
    base = base_of_adapter(path / "adapter_config.json")
    of = f" for {base}" if base else ""
    return (
        f"{name} contains an adapter{of}, not a model; merge it into its base model "
        "(merge_and_unload in peft), save the result and give its directory."
    )


def base_of_adapter(file: Path) -> str:
    """Quoted name of the base model in an adapter's configuration; empty if there is none."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            return ""
        base = json.loads(file.read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return repr(base[:120]) if isinstance(base, str) and base else ""


def other_weights(files: Iterable[Path]) -> str:
    """End of a sentence that names the first file in an unsupported format and what to do."""
    order = list(FORMATS)
    known = sorted(
        (order.index(file.suffix.lower()), file.name)
        for file in files
        if file.suffix.lower() in FORMATS and not is_training_state(file.name)
    )
    if not known:
        return ""
    position, file_name = known[0]
    kind, advice = FORMATS[order[position]]
    return f"only {file_name[:120]}, {kind}; only safetensors weights are read: {advice}."


def is_training_state(name: str) -> bool:
    """Return True for files next to a model that contain no weights of it."""
    return name in (
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
    )


def folders_with_config(files: Iterable[Path]) -> list[str]:
    """Relative paths of folders with a config.json, also below ``snapshots`` (as in the Hub's
    cache).
    """
    paths = []
    for folder in files:
        if folder.is_dir():
            inner = entries(folder) if folder.name == "snapshots" else [folder]
            models = [path for path in inner if (path / "config.json").is_file()]
            paths += [str(path.relative_to(folder.parent)) for path in models]
    return sorted(paths)


def entries(path: Path) -> list[Path]:
    """First MAX_ENTRIES entries of a folder."""
    return list(islice(path.iterdir(), MAX_ENTRIES))
