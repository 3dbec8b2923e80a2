"""Compressed models on disk: one safetensors file per block, with the settings of its layers in the
header.

The reported size is the total of these files' bytes. The folder also contains the model's config
and tokenizer, and ``compression.json``, which marks it as a compressed model of this engine.
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from engine import __version__
from engine.errors import PlainError
from engine.models.model_source import ModelSource, read_json
from engine.models.origin import Origin
from engine.results.schema.tables import LedgerRow
from engine.tensors.weights import StoredWeight, weight_from_settings

MARKER_FILE = "compression.json"
DTYPES = {  # names of dtypes in safetensors, in the order in which it writes them
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
COPIED_FILES = ("*.json", "*.txt", "*.model", "LICENSE*")


class PackedFolder:
    """Folder of a compressed model, written block by block so that no more than a block is in
    memory.
    """

    def __init__(self, folder: Path, source: ModelSource, recipe: dict[str, Any]):
        self.folder, self.blocks = folder, 0
        self.shapes: dict[str, tuple[int, int]] = {}  # layers written so far
        self.ledger: dict[str, Counter[str]] = defaultdict(Counter)  # layer -> part -> bytes
        with explain_write_errors(folder):
            for path in {
                path
                for pattern in COPIED_FILES
                for path in source.path.glob(pattern)
                if "index" not in path.name and path.name != MARKER_FILE
            }:
                shutil.copyfile(path, folder / path.name)
            # dtype of the weight files; that of config.json may differ or be missing
            config = json.loads((source.path / "config.json").read_bytes()) | {
                "dtype": source.dtype
            }
            (folder / "config.json").write_text(json.dumps(config, indent=1))
            self.mark = {"format": 1, "engine": __version__, "recipe": recipe}
            (folder / MARKER_FILE).write_text(json.dumps(self.mark, indent=1))
            (folder / "README.md").write_text(model_card(recipe))

    def add(
        self, layers: dict[str, StoredWeight], plain: dict[str, torch.Tensor] | None = None
    ) -> Path:
        """Write a file with the stored layers of a block and other tensors, and return its path;
        None if there are neither.
        """
        plain = plain or {}
        if not layers and not plain:
            return self.folder
        path = self.folder / f"model-{self.blocks + 1:05d}.safetensors"
        with explain_write_errors(self.folder):
            stored = write_file(path, layers, plain)
            # safetensors makes its files readable by their owner only
            path.chmod((self.folder / MARKER_FILE).stat().st_mode)
        self.blocks += 1
        self.shapes |= {name: stored.shape for name, stored in layers.items()}
        self.ledger |= {name: Counter(stored.byte_breakdown()) for name, stored in layers.items()}
        written = {"norms and biases": sum(value.nbytes for value in plain.values())}
        self.ledger[""].update(written | {"file headers": path.stat().st_size - stored})
        return path

    def finish(self, origin: Origin) -> None:
        """Write the index of every tensor's file, as for large models on the Hub, and the marker
        file with the original model's counts.
        """
        weight_map: dict[str, Any] = {}
        for path in sorted(self.folder.glob("model-*.safetensors")):
            with safe_open(path, "pt") as file:
                weight_map |= dict.fromkeys(file.keys(), path.name)
        with explain_write_errors(self.folder):
            index = {"metadata": {"total_size": self.size_bytes}, "weight_map": weight_map}
            (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
            (self.folder / MARKER_FILE).write_text(
                json.dumps(self.mark | {"origin": origin.to_json()}, indent=1)
            )

    def ledger_rows(self) -> list[LedgerRow]:
        return [
            LedgerRow(layer, part, size)
            for layer, parts in self.ledger.items()
            for part, size in parts.items()
            if size
        ]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("model-*.safetensors"))


def model_card(recipe: dict[str, Any]) -> str:
    """Model card of the compressed model. The original's card would state numbers that are not true
    of it.
    """
    steps = ", then ".join(f"`{step['technique']}`" for step in recipe.get("steps", []))
    return (
        f"# {recipe.get('model', 'A model')}, compressed\n\n"
        f"Made by Compression Explorer {__version__} with {steps or 'no step'}; the whole recipe "
        f"is in `{MARKER_FILE}`. "
        "Data and licence are the original's.\n\n"
        "Open it with Compression Explorer as any model: this folder as `model` of a recipe, or "
        "under “Another model…”.\n"
    )


def write_file(path: Path, layers: dict[str, StoredWeight], plain: dict[str, torch.Tensor]) -> int:
    """Bytes of all tensors, without the headers."""
    tensors = {name: value.contiguous() for name, value in packed_tensors(layers, plain).items()}
    save_file(tensors, path, metadata=packed_metadata(layers))
    return sum(value.nbytes for value in tensors.values())


def packed_tensors(
    layers: dict[str, StoredWeight], plain: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Tensors of a file by name."""
    return {
        f"{name}.weight.{part}": value
        for name, stored in layers.items()
        for part, value in stored.tensors().items()
    } | plain


def packed_metadata(layers: dict[str, StoredWeight]) -> dict[str, str]:
    # one key only: safetensors writes several in any order, and equal models should give equal
    # files
    return {"layers": json.dumps({name: stored.settings() for name, stored in layers.items()})}


def file_bytes(
    layers: dict[str, StoredWeight], plain: dict[str, torch.Tensor] | None = None
) -> int:
    """Size of a file with these tensors, which may be meta tensors: eight bytes for the header's
    length, the header padded to a multiple of eight, and the values.
    """
    tensors = packed_tensors(layers, plain or {})
    header, end = {"__metadata__": packed_metadata(layers)}, 0
    for name, value in sorted(
        tensors.items(), key=lambda item: (list(DTYPES).index(item[1].dtype), item[0])
    ):
        begin, end = end, end + value.nbytes
        header[name] = {
            "dtype": DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + end


@contextmanager
def explain_write_errors(folder: Path) -> Iterator[None]:
    """Explain a full disk, a missing permission or a file in the way in one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PlainError(
            f"The folder {str(folder)!r} cannot be written to ({reason[:200].lower()}); free "
            "some space or give another one."
        ) from None


def read_origin(folder: ModelSource) -> Origin | None:
    """Counts of the original model recorded in a compressed folder; None for earlier versions."""
    mark = read_json(folder.path / MARKER_FILE, str(folder))
    return Origin.from_json(mark["origin"], str(folder)) if "origin" in mark else None


def read_packed(folder: Path) -> tuple[dict[str, StoredWeight], dict[str, torch.Tensor]]:
    """The stored layers by name, and the tensors outside of layers. Tensors stay memory-mapped."""
    layers: dict[str, StoredWeight] = {}
    plain: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model-*.safetensors")):
        more_layers, more_plain = read_file(path)
        layers |= more_layers
        plain |= more_plain
    return layers, plain


def read_file(path: Path) -> tuple[dict[str, StoredWeight], dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        settings = json.loads((file.metadata() or {}).get("layers", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in settings}
    plain: dict[str, torch.Tensor] = {}
    for key, value in tensors.items():
        name, _, part = key.partition(".weight.")
        parts[name].update({part: value}) if name in parts else plain.update({key: value})
    return {
        name: weight_from_settings(config, parts[name]) for name, config in settings.items()
    }, plain
