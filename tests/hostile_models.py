"""Hostile model folders: a tiny model with one or two damaged files, by seed.

Used by ``tests/engine/models/test_hostile_models.py`` (a few dozen) and
``tests/benchmarks/fuzz_models.py`` (a thousand).
"""

import json
import random
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import PlainError
from tests.answers import forecast, layer_view, model_view, what_if
from tests.tiny import tiny

BASES = ("llama", "gpt2", "bert", "resnet", "mixtral", "vit")
FAMILIES = (
    "llama",
    "gpt2",
    "bert",
    "mixtral",
    "qwen2",
    "gpt_neo",
    "gemma3_text",
    "t5",
    "vit",
    "resnet",
    "deepseek_v3",
    "bloom",
    "falcon",
    "nothing",
)
ODD = (
    0,
    -1,
    1,
    3,
    10**5,
    10**7,
    10**12,
    2**63,
    10**30,
    0.5,
    -1e300,
    float("inf"),
    float("nan"),
    "",
    "x",
    "7",
    "../../etc/passwd",
    None,
    True,
    False,
    [],
    {},
    [10**9],
    [10**9] * 3,
    [[["global", "local"], 10**9]],
    [None],
    {"x": 10**9},
    {"rope_type": "yarn", "factor": -1},
    "é" * 1000,
)
Json = dict | list | str | int | float | bool | None


@dataclass(frozen=True)
class Outcome:
    """Result for one folder."""

    sentence: str  # reason of a refusal; empty if all questions were answered
    traceback: str  # an error other than PlainError, or empty


def library(folder: Path) -> dict[str, Path]:
    """One valid folder per base model."""
    return {name: tiny(name, folder / name) for name in BASES}


def hostile(bases: dict[str, Path], folder: Path, seed: int) -> str:
    """Fill ``folder`` with a damaged model and return a description of the damage."""
    draw = random.Random(seed)
    base = draw.choice(list(bases))
    shutil.copytree(bases[base], folder)
    (folder / "text.txt").write_text(
        "A pruned model is small only when the zeros are not stored. " * 200
    )
    done = [
        draw.choices(SPOILERS, WEIGHTS)[0](folder, draw) for _ in range(draw.choice((1, 1, 1, 2)))
    ]
    return f"{base}: {'; '.join(done)}"


def asked_as_a_page(folder: Path, calibrated: bool = False) -> Outcome:
    """Open the model, view a layer, forecast a run and ask a what-if, with calibration data if
    ``calibrated``.
    """
    reference, step = (
        str(folder),
        {"technique": "gptq" if calibrated else "round-to-nearest", "bits": 4},
    )
    text = {"text": str(folder / "text.txt"), "context": 16}
    try:
        view = model_view(reference)
        named, task = view.kind == "language-modeling", {"kind": view.kind}
        measured = (
            {"task": task | text | {"tokens": 64}, "calibration": text | {"samples": 2}}
            if named
            else {"task": task}
        )
        looked = view.layers[
            (view.layers.kind != "embedding") & (view.layers.tied_to == "")
        ].name.tolist()
        layer_view(reference, looked[0])
        forecast(
            {"model": reference, "steps": [step | {"technique": "round-to-nearest"}], **measured}
        )
        what_if(
            reference,
            looked[-1],
            step if named else step | {"technique": "round-to-nearest"},
            measured,
        )
    except PlainError as error:
        return Outcome(str(error), "")
    except Exception:
        return Outcome("", traceback.format_exc())
    return Outcome("", "")


# --- damage to one file ------------------------------------------------------------------------


def config_value(folder: Path, draw: random.Random) -> str:
    """Change the value of one field at any level."""
    return changed_json(folder / "config.json", draw)


def config_family(folder: Path, draw: random.Random) -> str:
    content = json_of(folder / "config.json")
    family = content["model_type"] = draw.choice(FAMILIES)
    if draw.random() < 0.5:
        content = {
            "architectures": content.get("architectures"),
            "model_type": family,
            "text_config": content,
            "vision_config": {"depth": 10**7},
        }
    rewrite(folder / "config.json", content)
    return f"model_type {family}"


def config_extra(folder: Path, draw: random.Random) -> str:
    """Add a field that the family may read."""
    extra = (
        "quantization_config",
        "text_config",
        "auto_map",
        "rope_scaling",
        "rope_parameters",
        "layer_types",
        "attention_types",
        "num_labels",
        "pad_token_id",
        "id2label",
        "architectures",
        "tie_word_embeddings",
        "head_dim",
        "depths",
        "dtype",
        "torch_dtype",
    )
    content = json_of(folder / "config.json")
    key, value = draw.choice(extra), draw.choice(ODD)
    rewrite(folder / "config.json", content | {key: value})
    return f"{key} = {str(value)[:40]}"


def other_json(folder: Path, draw: random.Random) -> str:
    """Damage the tokenizer's or image processor's files."""
    return changed_json(
        draw.choice([file for file in folder.glob("*.json") if file.name != "config.json"]), draw
    )


def changed_json(file: Path, draw: random.Random) -> str:
    content = json_of(file)
    if not content:
        return f"{file.name} as it was spoiled before"
    holder, key = content, draw.choice(list(content))
    while isinstance(holder[key], dict) and holder[key] and draw.random() < 0.7:
        holder = holder[key]
        key = draw.choice(list(holder))
    value = near(holder[key], draw) if draw.random() < 0.5 else draw.choice(ODD)
    if draw.random() < 0.1:
        del holder[key]
    else:
        holder[key] = value
    file.write_text(json.dumps(content))
    return f"{file.name}: {key} = {str(value)[:40]}"


def near(value: Json, draw: random.Random) -> Json:
    """Value that may look valid."""
    match value:
        case bool():
            return not value
        case int():
            return draw.choice((value + 1, value - 1, value * 2, value // 2, -value))
        case float():
            return draw.choice((value * 2, -value, 0.0))
        case str():
            return draw.choice((value.upper(), value[:-1], "gelu", "float16"))
    return draw.choice(ODD)


def rewrite(file: Path, content: dict) -> None:
    if not file.is_dir():
        file.write_text(json.dumps(content))


def json_of(file: Path) -> dict:
    """Parsed file; empty if earlier damage left nothing to read."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def damaged_bytes(folder: Path, draw: random.Random) -> str:
    """Truncate, change, re-encode, empty, delete or deeply nest a file."""
    file = draw.choice(
        [
            path
            for path in folder.iterdir()
            if path.is_file() and path.suffix in (".json", ".safetensors")
        ]
    )
    raw, kind = (
        file.read_bytes(),
        draw.choice(("cut", "flip", "utf-16", "empty", "gone", "nested", "folder")),
    )
    match kind:
        case "cut":
            raw = raw[: draw.randrange(len(raw) + 1)]
        case "flip":
            place = draw.randrange(max(1, min(len(raw), 4000)))
            raw = (
                raw[:place]
                + bytes([byte ^ (1 << draw.randrange(8)) for byte in raw[place : place + 1]])
                + raw[place + 1 :]
            )
        case "utf-16":
            raw = raw.decode("latin-1").encode("utf-16")
        case "empty":
            raw = b""
        case "nested":
            raw = b'{"a":' + b"[" * 100_000
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind != "gone":
        file.write_bytes(raw)
    return f"{file.name} {kind}"


def header_entry(folder: Path, draw: random.Random) -> str:
    """Change the header entry of one tensor."""
    names = {
        "dtype": ("F16", "F64", "I8", "BOOL", "F8_E4M3", "X", 7, None, []),
        "shape": ([], [0], [-1, 4], [10**9, 10**9], ["a"], None, 7, [2.5]),
    }
    names["data_offsets"] = ([0, 0], [8, 4], [0, 10**15], [-8, 8], [0], "0", None, [0.5, 8])

    def spoil(header: dict) -> str:
        name = draw.choice([key for key in header if key != "__metadata__"])
        kind = draw.choice(("field", "field", "field", "gone", "renamed", "odd", "metadata"))
        match kind:
            case "field":
                field = draw.choice(list(names))
                header[name][field] = draw.choice(names[field])
                return f"{name} {field} = {header[name][field]}"
            case "gone":
                del header[name]
            case "renamed":
                header[
                    draw.choice(("x", "", "model.layers.99.self_attn.q_proj.weight", "é" * 500))
                ] = header.pop(name)
            case "odd":
                header[name] = draw.choice(ODD)
            case "metadata":
                header["__metadata__"] = draw.choice(ODD)
        return f"{name} {kind}"

    return with_header(folder, spoil)


def header_length(folder: Path, draw: random.Random) -> str:
    file, length = (
        folder / "model.safetensors",
        draw.choice((0, 1, 7, 10**6, 6 * 10**9, 2**63, 2**64 - 1)),
    )
    if file.is_file():
        file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    return f"header of {length} bytes"


def with_header(folder: Path, spoil: Callable[[dict], str]) -> str:
    file = folder / "model.safetensors"
    if not file.is_file() or len(raw := file.read_bytes()) < 16:
        return "no weights left to spoil"
    length = int.from_bytes(raw[:8], "little")
    try:
        header = json.loads(raw[8 : 8 + length])
        done = spoil(header)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        return "a header that was spoiled before"
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    return done


def odd_index(folder: Path, draw: random.Random) -> str:
    """Write shards with an invalid index."""
    places = draw.choice(
        [
            {"a": "../model.safetensors"},
            {"a": "missing.safetensors"},
            {"a": 7},
            [],
            None,
            {},
            {"a": "shard.safetensors"},
            {"a": "config.json"},
            "x",
        ]
    )
    if (folder / "model.safetensors").is_file():
        (folder / "model.safetensors").rename(folder / "shard.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": draw.choice(ODD), "weight_map": places})
    )
    return f"index {places}"


def odd_numbers(folder: Path, draw: random.Random) -> str:
    """Write infinite, NaN or constant weights to the end of the file."""
    file = folder / "model.safetensors"
    if file.is_file():
        raw, fill = file.read_bytes(), draw.choice((b"\xff", b"\x00", b"\x7f", b"\x80"))
        count = min(len(raw), draw.choice((4, 4096, len(raw) // 2)))
        file.write_bytes(raw[: len(raw) - count] + fill * count)
        return f"last {count} bytes {fill!r}"
    return "no weights"


SPOILERS = (
    config_value,
    config_family,
    config_extra,
    other_json,
    damaged_bytes,
    header_entry,
    header_length,
    odd_index,
    odd_numbers,
)
WEIGHTS = (12, 2, 4, 6, 3, 4, 1, 2, 1)
