"""Writes rows of one shape to a CSV or a Parquet file, page by page; a file is there as a whole or not at all. And
reads what others wrote."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TypeVar

from penstock.cli.cost_table import cell
from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.pricing.focus import Kind, Value

STDOUT: Final = Path("-")

Result = TypeVar("Result")


def read_file(path: Path, read: Callable[[IO[str]], Result]) -> Result:
    """What `read` makes of a text; its ValueError is about what is in there. Raises `Mistake`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return read(file)
    except FileNotFoundError:
        raise Mistake(f"there is no {path}") from None
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Mistake(f"{path} is not UTF-8 text") from None
    except ValueError as error:
        raise Mistake(f"{path}: {error}") from None


class Sink(Protocol):
    def write(self, rows: Sequence[Sequence[Value]]) -> None: ...


@contextmanager
def csv_sink(path: Path, columns: Sequence[tuple[str, Kind]]) -> Iterator[Sink]:
    """`-` is whatever reads on. Raises `Mistake` when the file cannot be written."""
    if path == STDOUT:
        if sys.stdout.isatty():
            raise Mistake("what callers wrote could move the cursor of a terminal: name a file, or read on with |")
        yield _Csv(sys.stdout, columns)
        return
    with _replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
        yield _Csv(file, columns)


@contextmanager
def parquet_sink(path: Path, columns: Sequence[tuple[str, Kind]]) -> Iterator[Sink]:
    """Likewise; needs the extra `parquet`."""
    if find_spec("pyarrow") is None:
        raise Mistake("Parquet needs pyarrow. Install it with: pip install 'penstock[parquet]'")
    if path == STDOUT:
        raise Mistake("Parquet is written to a file: name one")
    import pyarrow
    import pyarrow.parquet

    types = {
        "text": pyarrow.string(),
        "number": pyarrow.int64(),
        "money": pyarrow.decimal128(38, 9),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns])
    with _replacing(path) as new, pyarrow.parquet.ParquetWriter(new, schema) as writer:
        yield _Parquet(writer, schema)


class _Csv:
    """Times are ISO 8601 in UTC, as FOCUS wants them; nothing is empty text."""

    def __init__(self, file: IO[str], columns: Sequence[tuple[str, Kind]]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow([name for name, _ in columns])

    def write(self, rows: Sequence[Sequence[Value]]) -> None:
        self._writer.writerows([_text(value) for value in row] for row in rows)


class _Parquet:
    """`writer` and `schema` are pyarrow's."""

    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer, self._schema = writer, schema

    def write(self, rows: Sequence[Sequence[Value]]) -> None:
        import pyarrow

        columns = zip(self._schema, zip(*rows, strict=True), strict=True)
        arrays = [pyarrow.array(column, field.type) for field, column in columns]
        self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))


def _text(value: Value) -> str:
    match value:
        case None:
            return ""
        case str():
            return cell(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Decimal():
            return f"{value:f}"
    return str(value)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    new = path.with_name(f"{path.name}.part")
    try:
        yield new
        new.replace(path)
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error.strerror}") from None
    finally:
        new.unlink(missing_ok=True)
