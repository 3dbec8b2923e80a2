"""Seeded damage to a store of runs (records, recipes, tables, index), as from bad disks, other
versions and manual edits.
"""

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from engine.results.schema.run_tables import TABLES
from engine.results.store.store import Store
from tests.runs import finished_record, record, tables

HOSTILE = (
    "![zq](http://foreign.test/p.png) <img src=http://foreign.test/x> <a "
    "href='http://foreign.test'>zq</a> [zq](http://foreign.test) $zq$ :red[zq]"
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**400,
    10**18,
    2**63,
    -(2**70),
    1e308,
    1e-320,
    "",
    " ",
    HOSTILE,
    "x" * 5000,
    "\u202e\x00\x1b[31m",
    "nan",
    [],
    [1],
    {},
    {"a": {"b": []}},
    "2026-01-01T00:00:00",
    "2026-01-01",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2099-01-01T00:00:00Z",
    "sparse-magic",
    "done",
    "running",
    "queued",
    "unreadable",
    1767225600,
    -62135596800,
)
RAW = ("NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "[" * 5000, "{", "")


def fill_store(store: Store, runs: int = 5) -> None:
    """Store with finished runs, a failed one and one of another program."""
    for number in range(1, runs + 1):
        store.save(finished_record(number), tables())
    store.save(record(runs + 1, "failed", message="Out of memory; choose a smaller model."))
    store.save(record(runs + 2, "running", owner="1:1.0"))


def damage(store: Store, draw: random.Random) -> str:
    """Damage one part of the store and return a description."""
    way = draw.choice(WAYS)
    folder = store.folders / draw.choice(
        sorted(path.name for path in store.folders.iterdir() if not path.name.startswith("."))
    )
    if folder.is_dir() and not folder.is_symlink():
        return f"{way.__name__} {folder.name}: {way(store, folder, draw) or ''}"
    return "nothing: the folder is one no more"


# --- records -----------------------------------------------------------------------------------


def places(part: Any, path: tuple = ()) -> list[tuple]:
    """Locations in a JSON value, including nested ones."""
    below = (
        part.items()
        if isinstance(part, dict)
        else enumerate(part)
        if isinstance(part, list)
        else ()
    )
    return [path, *(place for name, value in below for place in places(value, (*path, name)))]


def changed_field(store: Store, folder: Path, draw: random.Random) -> str:
    """Replace a value by one of another type, size or meaning; remove or add a field."""
    path = folder / "record.json"
    if not path.is_file():  # an earlier damage left a pipe or a device, which would never end
        return "not a file any more"
    try:
        content = json.loads(path.read_text())
        place = draw.choice([place for place in places(content) if place])
    except (OSError, ValueError, IndexError, RecursionError):
        return "not JSON any more"
    holder = content
    for name in place[:-1]:
        holder = holder[name]
    match draw.randrange(6):
        case 0:
            del holder[place[-1]]
        case 1 if isinstance(holder, dict):
            holder[draw.choice(["newer", "id", HOSTILE])] = draw.choice(VALUES)
        case 2:
            holder[place[-1]] = "@@"
            path.write_text(json.dumps(content).replace('"@@"', draw.choice(RAW), 1))
            return f"raw at {place}"
        case _:
            holder[place[-1]] = draw.choice(VALUES)
    path.write_text(json.dumps(content))
    return f"at {place}"


def changed_bytes(store: Store, folder: Path, draw: random.Random) -> str:
    path = folder / draw.choice(["record.json", "recipe.yaml", "record.json"])
    if path.is_file():
        mangle(path, draw)
    return path.name


def mangle(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    match draw.randrange(5):
        case 0:
            del content[draw.randrange(len(content) + 1) :]
        case 1:
            content = bytearray(draw.randbytes(200))
        case 2:
            content = bytearray()
        case _:
            for _ in range(draw.randrange(1, 4)):
                if content:
                    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def not_a_file(store: Store, folder: Path, draw: random.Random) -> str:
    """Replace a file by a folder, loop, pipe, device, dangling link or nothing."""
    path = folder / draw.choice(
        ["record.json", "record.json", "recipe.yaml", "layers.parquet", "histograms.parquet"]
    )
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    way = draw.choice(["folder", "loop", "pipe", "device", "dangling", "nothing"])
    match way:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to("nowhere")
    return f"{way} for {path.name}"


def not_a_folder(store: Store, folder: Path, draw: random.Random) -> str:
    shutil.rmtree(folder)
    match draw.randrange(3):
        case 0:
            folder.write_text("no folder")
        case 1:
            folder.symlink_to(folder)
        case 2:
            folder.symlink_to(store.folders)
    return ""


def another_id(store: Store, folder: Path, draw: random.Random) -> str:
    """Copy a folder under another name, so that two have the same id."""
    target = store.folders / f"copy-{draw.randrange(100):04}"
    if not target.exists():
        shutil.copytree(folder, target, symlinks=True, copy_function=copy_file)
    return target.name


def copy_file(source: str, target: str) -> None:
    if Path(source).is_file():  # reading a pipe never ends
        shutil.copy2(source, target)


def another_time(store: Store, folder: Path, draw: random.Random) -> str:
    when = draw.choice([0, -1e9, 4e9, 1e11, 1e12])
    for path in (folder / "record.json", folder):
        if path.exists() and not path.is_fifo():
            os.utime(path, (when, when))
    return str(when)


# --- tables ------------------------------------------------------------------------------------


def changed_table(store: Store, folder: Path, draw: random.Random) -> str:
    """Change bytes, columns, types or values of one table."""
    path = folder / f"{draw.choice(sorted(TABLES))}.parquet"
    if not path.is_file() or path.is_symlink():
        return "no table"
    way = draw.choice([mangle, lost_column, strange_column, other_values, other_types, many_rows])
    if way is mangle:
        mangle(path, draw)
    else:
        try:
            frame = pd.read_parquet(path)
        except Exception:
            return "damaged before"
        if len(frame.columns):
            way(path, frame, draw)
    return f"{way.__name__} {path.stem}"


def lost_column(path: Path, frame: pd.DataFrame, draw: random.Random) -> None:
    frame.drop(columns=draw.choice(list(frame.columns))).to_parquet(path)


def strange_column(path: Path, frame: pd.DataFrame, draw: random.Random) -> None:
    frame.assign(**{HOSTILE: 1}).to_parquet(path)


def other_values(path: Path, frame: pd.DataFrame, draw: random.Random) -> None:
    """Values of the same type: hostile names, invalid numbers."""
    name = draw.choice(list(frame.columns))
    text = len(frame) and isinstance(frame[name].iloc[0], str)
    values = (
        [HOSTILE, "", "\x00", "x" * 3000] if text else [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e308]
    )
    if (len(frame) and not hasattr(frame[name].iloc[0], "__len__")) or text:
        frame.assign(**{name: draw.choice(values)}).to_parquet(path)


def other_types(path: Path, frame: pd.DataFrame, draw: random.Random) -> None:
    name = draw.choice(list(frame.columns))
    value = draw.choice(
        ["text", 1, 1.5, True, None, b"bytes", [1, 2], ["a"], {"a": 1}, pd.Timestamp(0)]
    )
    frame.assign(**{name: pd.Series([value] * len(frame), index=frame.index)}).to_parquet(path)


def many_rows(path: Path, frame: pd.DataFrame, draw: random.Random) -> None:
    """Small file that unpacks to many equal rows or repeats of one long text."""
    rows = 3_000_000
    columns = {name: pa.array([0]).take(pa.array(np.zeros(rows, int))) for name in frame.columns}
    if draw.random() < 0.5:
        long = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array(["y" * 100_000]))
        columns = dict.fromkeys(frame.columns, long)
    pq.write_table(pa.table(columns), path, compression="zstd")


# --- index -------------------------------------------------------------------------------------


def changed_index(store: Store, folder: Path, draw: random.Random) -> str:
    """Change bytes or rows of the index."""
    if not store.index or not store.index.is_file():
        return "no index"
    match draw.randrange(4):
        case 0:
            mangle(store.index, draw)
            return "bytes"
        case 1:
            for end in ("-wal", "-shm"):
                store.index.with_name(store.index.name + end).write_bytes(draw.randbytes(500))
            return "journal"
        case 2:
            store.index.unlink()
            store.index.write_bytes(b"")
            return "empty"
    column = draw.choice(
        ["created", "record", "size", "label", "status", "words", "techniques", "model"]
    )
    value = draw.choice([None, "text", 5, 1.5, b"\xff\xfe", "{}"])
    try:
        with sqlite3.connect(store.index) as rows:
            rows.execute(f"UPDATE runs SET {column} = ?", (value,))
        rows.close()
    except sqlite3.Error:
        return "damaged before"
    return f"{column} = {value!r}"


WAYS: tuple[Callable[[Store, Path, random.Random], str], ...] = (
    changed_field,
    changed_field,
    changed_field,
    changed_field,
    changed_bytes,
    not_a_file,
    not_a_folder,
    another_id,
    another_time,
    changed_table,
    changed_table,
    changed_table,
    changed_index,
)
