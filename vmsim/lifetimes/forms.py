"""The forms of tables: our own, and those of the traces of Azure, Google and Alibaba.

Columns are those of the traces' own descriptions: Azure/AzurePublicDataset (AzurePublicDatasetV1.md, V2), google/
cluster-data (clusterdata_trace_format_v3.proto), alibaba/clusterdata (cluster-trace-v2018/schema.txt,
cluster-trace-gpu-v2023). No such trace says which pages a VM accesses: the scenario does.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable
from vmsim.base.units import parse_duration, parse_size, shown
from vmsim.lifetimes.events import KINDS, Event
from vmsim.workloads.opening import opened

__all__ = ["FORMS", "Form", "Row", "read_events"]

_SECOND: Final = 10**9
_LARGEST: Final = 1 << 62
_PIECE: Final = 1 << 20  # bytes


class Row(NamedTuple):
    """A row of a table: its cells by column, the table's name, and its line."""

    cells: Mapping[str, str]
    name: str
    line: int

    def text(self, column: str) -> str:
        """Return a cell that is not empty."""
        if found := self.cells[column].strip():
            return found
        raise self.wrong(column, "nothing there")

    def number(self, column: str) -> Fraction:
        """Return a cell as a number, read exactly; a bucket such as ``>24`` is its bound."""
        found = self.text(column)
        try:
            value = Fraction(found.lstrip(">"))
        except (ValueError, ZeroDivisionError):
            raise self.wrong(column, "expected a number") from None
        if abs(value) > _LARGEST:
            raise self.wrong(column, "too large")
        return value

    def size(self, column: str, unit: int) -> int:
        """Return a cell as bytes, above 0."""
        value = self.number(column) * unit
        if not 0 < value < _LARGEST:
            raise self.wrong(column, "expected more than 0, and no more than a machine can have")
        return max(1, int(value))

    def wrong(self, column: str, why: str) -> InputError:
        """Return what is wrong with a cell."""
        return InputError(f"{self.name}:{self.line}: column {column}: found {shown(self.cells[column])}; {why}.")


class Form(NamedTuple):
    """A form of tables.

    Attributes
    ----------
    about : str
        Whose it is.
    columns : tuple of str
        In the order of files without a header.
    needed : tuple of str
        Those that are read.
    read : callable
        Yields a row's events; the second argument is the bytes of a machine, of which some give parts.
    strict : bool
        Events that cannot be are refused.
    """

    about: str
    columns: tuple[str, ...]
    needed: tuple[str, ...]
    read: Callable[[Row, int], Iterator[Event]]
    strict: bool = False


def _nanoseconds(row: Row, column: str, unit: int) -> int:
    return round(row.number(column) * unit)


def _own(row: Row, machine: int) -> Iterator[Event]:
    kind = row.text("event")
    if kind not in KINDS:
        raise row.wrong("event", nearest(kind, KINDS).rstrip("."))
    text = row.text("time")
    try:
        time = round(row.number("time") * _SECOND) if text.replace(".", "", 1).isdigit() else _of_duration(text)
    except InputError:
        raise row.wrong("time", 'expected seconds, or a time with its unit such as "10ms"') from None
    size = 0
    if kind != "stop":
        try:
            size = parse_size(row.text("size"))
        except InputError:
            size = 0
        if not size:
            raise row.wrong("size", 'expected memory with its unit, such as "2GiB"')
    yield Event(time, row.text("vm"), kind, size, row.line)


def _of_duration(text: str) -> int:
    return parse_duration(text).cycles(_SECOND)


def _azure(row: Row, machine: int) -> Iterator[Event]:
    vm, size = row.text("vmid"), row.size("vmmemorybucket", 1 << 30)
    yield Event(_nanoseconds(row, "vmcreated", _SECOND), vm, "start", size, row.line)
    yield Event(_nanoseconds(row, "vmdeleted", _SECOND), vm, "stop", 0, row.line)


_GOOGLE: Final = {
    **{"0": "SUBMIT", "1": "QUEUE", "2": "ENABLE", "3": "SCHEDULE", "4": "EVICT", "5": "FAIL", "6": "FINISH"},
    **{"7": "KILL", "8": "LOST", "9": "UPDATE_PENDING", "10": "UPDATE_RUNNING"},
}
_ENDS: Final = ("EVICT", "FAIL", "FINISH", "KILL", "LOST")


def _google(row: Row, machine: int) -> Iterator[Event]:
    text = row.text("type")
    kind = _GOOGLE.get(text, text)
    if kind not in _GOOGLE.values():
        raise row.wrong("type", f"expected 0 to 10 or a name. {nearest(kind, _GOOGLE.values())}".rstrip("."))
    vm = f"{row.text('collection_id')}_{row.text('instance_index')}"
    time = _nanoseconds(row, "time", 1000)
    if kind in ("SCHEDULE", "UPDATE_RUNNING"):
        size = row.size("resource_request.memory", machine)
        yield Event(time, vm, "start" if kind == "SCHEDULE" else "resize", size, row.line)
    elif kind in _ENDS:
        yield Event(time, vm, "stop", 0, row.line)


def _alibaba(row: Row, machine: int) -> Iterator[Event]:
    vm, time, size = row.text("container_id"), _nanoseconds(row, "time_stamp", _SECOND), 0
    if row.text("status") not in ("started", "allocated"):
        yield Event(time, vm, "stop", 0, row.line)
        return
    size = max(1, row.size("mem_size", machine) // 100)
    yield Event(time, vm, "start", size, row.line)
    yield Event(time, vm, "resize", size, row.line)  # of one that runs already


def _alibaba_gpu(row: Row, machine: int) -> Iterator[Event]:
    vm = row.text("name")
    yield Event(_nanoseconds(row, "creation_time", _SECOND), vm, "start", row.size("memory_mib", 1 << 20), row.line)
    if row.cells["deletion_time"].strip():
        yield Event(_nanoseconds(row, "deletion_time", _SECOND), vm, "stop", 0, row.line)


FORMS: Final[Mapping[str, Form]] = {
    "events": Form("vmsim's own", ("time", "vm", "event", "size"), ("time", "vm", "event", "size"), _own, True),
    "azure": Form(
        "vmtable of Azure's traces V1 and V2",
        (
            *("vmid", "subscriptionid", "deploymentid", "vmcreated", "vmdeleted", "maxcpu", "avgcpu", "p95maxcpu"),
            *("vmcategory", "vmcorecountbucket", "vmmemorybucket"),
        ),
        ("vmid", "vmcreated", "vmdeleted", "vmmemorybucket"),
        _azure,
    ),
    "google": Form(
        "instance events of Google's trace of 2019 (v3)",
        (
            *("time", "type", "collection_id", "scheduling_class", "missing_type", "collection_type", "priority"),
            *("alloc_collection_id", "instance_index", "machine_id", "alloc_instance_index"),
            *("resource_request.cpus", "resource_request.memory", "constraint"),
        ),
        ("time", "type", "collection_id", "instance_index", "resource_request.memory"),
        _google,
    ),
    "alibaba": Form(
        "container_meta of Alibaba's trace of 2018",
        (
            *("container_id", "machine_id", "time_stamp", "app_du", "status", "cpu_request", "cpu_limit"),
            "mem_size",
        ),
        ("container_id", "time_stamp", "status", "mem_size"),
        _alibaba,
    ),
    "alibaba-gpu": Form(
        "pod list of Alibaba's GPU trace of 2023",
        (
            *("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "pod_phase"),
            *("creation_time", "deletion_time", "scheduled_time"),
        ),
        ("name", "memory_mib", "creation_time", "deletion_time"),
        _alibaba_gpu,
    ),
}
"""Forms by name."""


def read_events(path: Path, form: str | None, machine: int) -> tuple[str, list[Event]]:
    """Return the form of a table, and its events in the order of its lines.

    Parameters
    ----------
    path : Path
        A CSV, compressed or not, with a header or in the order of its form's columns.
    form : str or None
        A key of `FORMS`; None: what its first line shows.
    machine : int
        Bytes of a machine, of which some tables give parts.

    Raises
    ------
    InputError
        It cannot be read, is of no known form, or has a cell that cannot be: with the line.
    """
    if form is not None and form not in FORMS:
        raise InputError(f"form: {form!r} is none of {', '.join(FORMS)}. {nearest(form, FORMS)}")
    name = printable(path)
    with opened(path, text=True) as file:
        lines = csv.reader(_lines(file), strict=True)
        try:
            first = next(lines, None)
            if first is None:
                raise InputError(f"{name}: the table is empty.")
            found, columns, headed = _form_of(first, form, name)
            events = [] if headed else [*found.read(_row(first, columns, name, 1), machine)]
            for cells in lines:
                if cells:
                    events.extend(found.read(_row(cells, columns, name, lines.line_num), machine))
        except csv.Error as error:
            raise InputError(f"{name}:{lines.line_num}: no CSV: {error}.") from None
    return next(key for key, each in FORMS.items() if each is found), events


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file that is read piece by piece."""
    left = b""
    while piece := file.read(_PIECE):
        *lines, left = (left + piece).split(b"\n")
        if len(left) > _PIECE:
            raise InputError("a line has more than a million characters; expected a table with one row a line.")
        yield from (line.decode("utf-8", "replace") + "\n" for line in lines)
    if left:
        yield left.decode("utf-8", "replace")


def _form_of(first: list[str], wanted: str | None, name: str) -> tuple[Form, tuple[str, ...], bool]:
    """Return the form that a first line shows, the columns in their order, and whether the line is a header."""
    names = tuple(cell.strip().lower() for cell in first)
    forms = [FORMS[wanted]] if wanted else [*FORMS.values()]
    for form in forms:
        if {*form.needed} <= {*names}:
            return form, names, True
    fitting = [form for form in forms if len(names) == len(form.columns)]
    if len(fitting) == 1:
        return fitting[0], fitting[0].columns, False
    if fitting:
        keys = " or ".join(key for key, form in FORMS.items() if form in fitting)
        raise InputError(f"{name}:1: a table without a header, of {len(names)} columns: say which form it has, {keys}.")
    if wanted:
        form = forms[0]
        expected = f"a header with {', '.join(form.needed)}, or the {len(form.columns)} columns of {form.about}"
    else:
        expected = "; ".join(f"{key}: {', '.join(form.needed)}" for key, form in FORMS.items())
    raise InputError(f"{name}:1: found {len(names)} columns, {shown(','.join(first))}. Expected {expected}.")


def _row(cells: list[str], columns: tuple[str, ...], name: str, line: int) -> Row:
    if len(cells) != len(columns):
        raise InputError(f"{name}:{line}: found {len(cells)} cells, expected {len(columns)}: {', '.join(columns)}.")
    return Row(dict(zip(columns, cells, strict=True)), name, line)
