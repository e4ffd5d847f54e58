"""The relative paths of a scenario that is written to another folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from vmsim.scenario.cpu_files import cpu_names
from vmsim.scenario.daemons import host_daemons
from vmsim.scenario.tables import Host, VmGroup

__all__ = ["moved_paths"]


def moved_paths(
    host: Host, groups: Sequence[VmGroup], daemons: Sequence[str], start: Path, folder: Path
) -> Iterator[tuple[str, str]]:
    """Yield the keys of relative paths that lead to a file, with values that lead there from another folder.

    Parameters
    ----------
    host, groups, daemons
        Of the scenario; daemons are those that run.
    start : Path
        Folder that its paths start from now.
    folder : Path
        Where they are to start from.
    """
    named: list[tuple[str, str, Callable[[str], str]]]
    named = [("host.cpu", host.cpu, str)] if host.cpu not in cpu_names() else []
    for number, group in enumerate(groups):
        named += [(f"vm.{number}.workload.{key}", path, str) for key, path in group.workload.files().items()]
    for name in daemons:
        daemon = host_daemons()[name]
        for key, path in daemon.files(host.part(name)).items():
            named.append((f"host.{name}.{key}", path, partial(daemon.naming, key)))
    for key, path, value in named:
        target = start / path
        if not Path(path).is_absolute() and target.is_file():
            yield key, value(Path(os.path.relpath(target, folder)).as_posix())
