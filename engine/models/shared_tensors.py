"""Tensors with several names in a model, and files that contain one of them more than once."""

from torch import nn

from engine.models.model_source import ModelSource, read_header


def names_by_tensor(model: nn.Module) -> list[list[str]]:
    """Names in the model's state dict, grouped by tensor, in the model's order."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return list(names.values())


def duplicate_bytes(folder: ModelSource, model: nn.Module) -> dict[str, int]:
    """Bytes of file entries that repeat a tensor: under another name of the same tensor in the
    loaded ``model``, or under the same name in another shard.
    """
    first_names = {name: names[0] for names in names_by_tensor(model) for name in names}
    entries: dict[str, list[tuple[str, int]]] = {}
    for file in folder.files:
        for name, entry in read_header(file, str(folder)).items():
            tensor = next(
                (first_names[alias] for alias in aliases(name, model) if alias in first_names), name
            )
            begin, end = entry["data_offsets"]
            entries.setdefault(tensor, []).append((name, end - begin))
    again: dict[str, int] = {}
    for tensor, stored in entries.items():
        # the entry with the tensor's first name counts
        stored.sort(key=lambda entry: tensor not in aliases(entry[0], model))
        for name, size in stored[1:]:
            again[name] = again.get(name, 0) + size
    return again


def entry_bytes(folder: ModelSource, names: set[str]) -> dict[str, int]:
    """Bytes of the file entries with these names."""
    found: dict[str, int] = {}
    for file in folder.files:
        for name, entry in read_header(file, str(folder)).items():
            if name in names:
                begin, end = entry["data_offsets"]
                found[name] = found.get(name, 0) + end - begin
    return found


def aliases(name: str, model: nn.Module) -> tuple[str, ...]:
    """Possible names in the model for a name in a file: with or without the prefix of the base
    model.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return name, f"{prefix}{name}", name.removeprefix(prefix)
