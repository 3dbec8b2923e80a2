"""Reading of text files in common compressions, encodings and column separators. Properties that
the file states itself, by a byte order mark or suffix, are used silently; assumptions are noted.
"""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from engine.errors import PlainError
from engine.quantities import megabytes

MAX_UNPACKED = 256_000_000  # bytes; a small file can unpack to any size
SCANNED = 256 * 2**20  # bytes used to detect the encoding
HEAD = 256 * 1024  # bytes used to detect the separator
BYTE_ORDER_MARKS = (  # byte order marks; UTF-32's starts with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = 0.15  # maximum share of non-ASCII bytes in Western languages
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
STATED = re.compile(r"\ufeff?sep=(.)", re.IGNORECASE)  # of Excel
SAVE_AS_UTF8 = "save it as UTF-8 and try again"


@dataclass(frozen=True)
class TextFile:
    path: Path
    encoding: str
    notes: tuple[str, ...] = ()  # assumptions, one sentence each

    @contextmanager
    def open_text(self) -> Iterator[TextIO]:
        """Open the file as unpacked and decoded text.

        Raises PlainError if that fails.
        """
        with (
            explain_read_errors(self.path),
            open_unpacked(self.path) as stream,
            io.TextIOWrapper(stream, self.encoding, newline="") as text,
        ):
            yield text

    def head(self) -> str:
        with self.open_text() as text:
            return text.read(HEAD)


@dataclass(frozen=True)
class ColumnFormat:
    """Separator and quoting of a file's columns."""

    separator: str
    quoted: bool  # values may be enclosed in quotation marks
    count: int = 1  # of the header
    stated: bool = False  # the first line only gives the separator, as Excel's "sep=;" does
    notes: tuple[str, ...] = ()


# --- bytes -------------------------------------------------------------------------------------


class LimitedStream(io.RawIOBase):
    """Unpacked stream that raises a PlainError beyond the limit."""

    def __init__(self, stream: BinaryIO, name: str):
        self.stream, self.name, self.left = stream, name, MAX_UNPACKED

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        content = self.stream.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise PlainError(
                f"{self.name} unpacks to more than {megabytes(MAX_UNPACKED)}; give a "
                "smaller file, or unpack it first."
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.stream.close()
        super().close()


def open_unpacked(path: Path) -> BinaryIO:
    """Bytes of the file, decompressed if its suffix or its first bytes name a compression."""
    with path.open("rb") as file:
        start = file.read(8)
    suffix = next(
        (suffix for mark, suffix in COMPRESSED_MARKS.items() if start.startswith(mark)),
        path.suffix.lower(),
    )
    unpack = UNPACKERS.get(suffix)
    return (
        io.BufferedReader(LimitedStream(unpack(path), path.name), 1 << 16)
        if unpack
        else path.open("rb")
    )


def open_zstd(path: Path) -> BinaryIO:
    import pyarrow

    return pyarrow.input_stream(str(path), compression="zstd")


COMPRESSED_MARKS = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\0": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
}
UNPACKERS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": open_zstd,
}


@contextmanager
def explain_read_errors(path: Path) -> Iterator[None]:
    """Replace errors of reading, unpacking and decoding a file by messages."""
    try:
        yield
    except PlainError:
        raise
    except UnicodeError:
        raise PlainError(f"{path.name} contains text that is not UTF-8; {SAVE_AS_UTF8}.") from None
    except PermissionError as error:
        raise PlainError(
            f"{path.name} cannot be read ({error.strerror}); check its permissions."
        ) from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = (
            getattr(error, "strerror", None) or str(error).split("\n")[0][:120] or "unknown reason"
        )
        raise PlainError(
            f"{path.name} cannot be read ({reason}); it may be truncated: save or compress it "
            "again."
        ) from None


# --- encoding ----------------------------------------------------------------------------------


def text_file(path: Path) -> TextFile:
    """File with its encoding.

    Raises PlainError if it is not text or its encoding cannot be detected.
    """
    with explain_read_errors(path), open_unpacked(path) as stream:
        head = stream.read(1 << 16)
        if encoding := next(
            (encoding for mark, encoding in BYTE_ORDER_MARKS if head.startswith(mark)), None
        ):
            return TextFile(path, encoding)
        if b"\0" in head:
            return TextFile(
                path,
                utf16_without_mark(head, path.name),
                (f"{path.name} has no byte order mark and was read as UTF-16.",),
            )
        if is_utf8(head, stream):
            return TextFile(path, "utf-8")
    return TextFile(
        path,
        western_encoding(head, path),
        (
            (
                f"{path.name} is not UTF-8 and was read as Windows-1252 (Latin-1); if letters "
                f"look wrong, {SAVE_AS_UTF8}."
            ),
        ),
    )


def utf16_without_mark(head: bytes, name: str) -> str:
    """Detect UTF-16 without a byte order mark by null bytes at every other position."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if max(even, odd) > 0.4 * half and min(even, odd) < 0.05 * half:
        return "utf-16-le" if odd > even else "utf-16-be"
    if head.startswith(b"PK"):
        raise PlainError(f"{name} is a zip archive; unpack it, and give the file inside.")
    raise PlainError(
        f"{name} contains null bytes: it is not text, or it is UTF-16 without a byte order mark. "
        "Save it as UTF-8, or give it the suffix of its format."
    )


def is_utf8(head: bytes, stream: BinaryIO) -> bool:
    decoder, left = codecs.getincrementaldecoder("utf-8")(), SCANNED
    try:
        while head and left > 0:
            decoder.decode(head)
            left -= len(head)
            head = stream.read(1 << 20)
        decoder.decode(b"", final=not head)
    except UnicodeDecodeError:
        return False
    return True


def western_encoding(head: bytes, path: Path) -> str:
    """Return Windows-1252 if the bytes look like a Western language.

    Raises PlainError otherwise.
    """
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        pass
    else:
        if sum(byte > 127 for byte in head) <= WESTERN * len(head):
            return "cp1252"
    raise PlainError(
        f"{path.name} is not UTF-8 text, and its encoding cannot be detected; {SAVE_AS_UTF8}."
    )


# --- columns -----------------------------------------------------------------------------------


def column_format(file: TextFile) -> ColumnFormat:
    """Detect the columns of a .csv or .tsv file: the separator that gives most rows the header's
    width, with comma (or tab) preferred.
    """
    expected = "\t" if ".tsv" in file.path.name.lower() else ","
    head = file.head()
    first = head.splitlines()[0] if head else ""
    if len(first) == HEAD:
        raise PlainError(
            f"The first line of {file.path.name} is longer than {megabytes(HEAD)}; give a "
            "table with a header line."
        )
    if (stated := STATED.fullmatch(first)) and stated[1] in SEPARATORS:
        return ColumnFormat(
            stated[1], True, header_width(head[len(first) :], stated[1]), stated=True
        )
    choices = [
        (separator, True)
        for separator in sorted(SEPARATORS, key=lambda candidate: candidate != expected)
    ] + [("\t", False)]
    # the first of equals
    separator, quoted = max(choices, key=lambda choice: even_row_share(head, *choice))
    notes: list[str] = []
    if separator != expected:
        notes.append(
            f"The columns of {file.path.name} were read as separated by {SEPARATORS[separator]}."
        )
    if not quoted:
        notes.append(f"Quotation marks in {file.path.name} were read as plain characters.")
    return ColumnFormat(
        separator, quoted, header_width(head, separator, quoted), notes=tuple(notes)
    )


def header_width(head: str, separator: str, quoted: bool = True) -> int:
    """Number of columns of the first row that has any."""
    with suppress(csv.Error):
        return next(map(len, filter(None, csv_rows(head, separator, quoted))), 1)
    return 1


def csv_rows(head: str, separator: str, quoted: bool) -> Iterator[list[str]]:
    """Parse the rows at the beginning of a CSV file.

    Raises csv.Error at a value over 128 KB, most likely an unclosed quotation mark.
    """
    return csv.reader(
        io.StringIO(head, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )


def even_row_share(head: str, separator: str, quoted: bool) -> float:
    """Share of rows with as many values as the header; 0 if the header has only one."""
    widths: list[int] = []
    try:
        widths.extend(len(row) for row in csv_rows(head, separator, quoted) if row)
    except csv.Error:
        widths.append(0)
    # the last row may be truncated
    rows = widths[1:-1] if len(head) == HEAD and len(widths) > 2 else widths[1:]
    if not widths or widths[0] < 2:
        return 0.0
    return sum(width == widths[0] for width in rows) / len(rows) if rows else 1.0
