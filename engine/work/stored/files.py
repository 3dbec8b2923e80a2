"""Compressed models on disk: one safetensors file for each block, each with its layers' settings in its header.

The bytes of these files are the size that is reported. Beside them stand the model's own config and tokenizer, and
``compression.json``, which marks the folder as ours.
"""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine import __version__
from engine.errors import PlainError
from engine.results.tables import LedgerRow
from engine.work.stored.weights import Stored, restored

MARK = "compression.json"
CARRIED = ("*.json", "*.txt", "*.model", "README.md", "LICENSE*")


class PackedFolder:
    """Written block by block, so that no more than a block is held in memory."""

    def __init__(self, folder: Path, source: Path, recipe: dict[str, Any]):
        self.folder, self.blocks = folder, 0
        self.ledger: dict[str, dict[str, int]] = defaultdict(dict)  # layer -> part -> bytes
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
            raise PlainError(f"{folder} already holds a model; give an empty or a new folder.")
        for path in {path for pattern in CARRIED for path in source.glob(pattern) if "index" not in path.name and path.name != MARK}:
            shutil.copyfile(path, folder / path.name)
        (folder / MARK).write_text(json.dumps({"format": 1, "engine": __version__, "recipe": recipe}, indent=1))

    def add(self, layers: dict[str, Stored], plain: dict[str, torch.Tensor] | None = None) -> None:
        """One more file: the stored layers of a block, and tensors that belong to no layer."""
        plain = plain or {}
        tensors = {f"{name}.weight.{part}": value for name, stored in layers.items() for part, value in stored.tensors().items()}
        settings = {name: stored.settings() for name, stored in layers.items()}
        path = self.folder / f"model-{self.blocks + 1:05d}.safetensors"
        save_file({k: v.contiguous() for k, v in (tensors | plain).items()}, path, metadata={"format": "pt", "layers": json.dumps(settings)})
        self.blocks += 1
        for name, stored in layers.items():
            self.ledger[name] |= stored.ledger()
        written = sum(stored.nbytes for stored in layers.values()) + sum(value.nbytes for value in plain.values())
        rest = self.ledger[""]
        rest["norms and biases"] = rest.get("norms and biases", 0) + sum(value.nbytes for value in plain.values())
        rest["file headers"] = rest.get("file headers", 0) + path.stat().st_size - written

    def finish(self) -> None:
        """The index that names every tensor's file, as large models on the Hub have it."""
        places = {}
        for path in sorted(self.folder.glob("model-*.safetensors")):
            with safe_open(path, "pt") as file:
                places |= dict.fromkeys(file.keys(), path.name)
        (self.folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": self.size_bytes}, "weight_map": places}, indent=1)
        )

    def ledger_rows(self) -> list[LedgerRow]:
        return [LedgerRow(layer, part, size) for layer, parts in self.ledger.items() for part, size in parts.items() if size]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("model-*.safetensors"))


def read_packed(folder: Path) -> tuple[dict[str, Stored], dict[str, torch.Tensor]]:
    """The stored layers by name, and the tensors that belong to no layer. Tensors stay mapped to the files."""
    layers: dict[str, Stored] = {}
    plain: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model-*.safetensors")):
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {}).get("layers", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, how in settings.items():
            parts = [key for key in tensors if key.startswith(f"{name}.weight.")]
            layers[name] = restored(how, {key.removeprefix(f"{name}.weight."): tensors.pop(key) for key in parts})
        plain |= tensors
    return layers, plain
