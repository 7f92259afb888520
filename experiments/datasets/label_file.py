"""Files of labels: a line for each recording, of its name, its label and possibly its group."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from unicodedata import normalize

from experiments.datasets import DataError
from experiments.datasets.raw_files import Reject

#: A line's number, from 1, and its fields.
Row = tuple[int, Sequence[str]]


class Label(NamedTuple):
    """The label of a recording, at ``line`` of the file.

    ``label`` is empty if the line has been rejected; ``group`` if there is none.
    """

    line: int
    label: str
    group: str = ""


def read_rows(data: bytes, file: str) -> Iterator[Row]:
    """Yield the rows of a CSV file (UTF-8) that are not blank, without spaces around fields.

    Fields are in Unicode's form NFC: a system may write an accent as a character of its own.
    """
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, [normalize("NFC", field.strip()) for field in fields]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no CSV file in UTF-8: {error}") from error


def read_labels(rows: Iterable[Row], file: str, fields: int, reject: Reject) -> dict[str, Label]:
    """Return the labels of recordings, by name, from rows of that many ``fields``.

    A name that comes twice has an empty label: nobody knows which of them is right.
    """
    labels: dict[str, Label] = {}
    for line, row in rows:
        problem = None
        if len(row) != fields:
            problem = f"expected {fields} fields; got {','.join(row)!r}"
        elif "" in row:
            problem = f"the {('name', 'label', 'group')[row.index('')]} is empty"
        elif row[0] in labels:
            first = f"after that in line {labels[row[0]].line}"
            problem = f"a second label of {row[0]}, {first}; none is taken"
        if problem:
            reject(f"{file}, line {line}", problem)
        if row[0]:
            first_line = labels[row[0]].line if row[0] in labels else line
            labels[row[0]] = Label(first_line, "") if problem else Label(line, *row[1:])
    return labels
