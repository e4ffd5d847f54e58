"""The stream of workload bounce."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vmsim.workloads import Place, Stream
from vmsim.workloads.generators import Generator


class _Bounce(Generator):
    name = "bounce"
    runs_key = "rounds"

    def _blocks(self, thread: int) -> Iterator[np.ndarray]:
        ends = np.array([self.base, self.base + self.size - 4096], np.int64)
        for first, runs in self._sizes(self.runs):
            yield ends[np.arange(first, first + runs) % 2]


def bounce(spec: Any, place: Place) -> Stream:
    """Make the stream."""
    return _Bounce(size=spec.footprint, base=spec.base, seed=place.seed, runs=2 * spec.rounds)
