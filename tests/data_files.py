"""Rows of texts and labels in files of every kind."""

import io

import pandas as pd
import pytest

from engine.errors import PlainError

ROWS = {"text": ["NA", "null", "some words", "2024-01-01"], "label": [0, 1, 1, 0]}


def save_rows(folder, name, rows=ROWS):
    path, frame = folder / name, pd.DataFrame(rows)
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case _:
            frame.to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return str(path)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def assert_refused(read, *words):
    with pytest.raises(PlainError) as caught:
        read()
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith((".", ")."))
    assert all(word in sentence for word in words), sentence
