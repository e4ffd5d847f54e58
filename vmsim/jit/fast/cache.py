"""numba's cache of compiled functions, its files kept as `vmsim.jit.kernel_cache` says."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator

from vmsim.jit.kernel_cache import discard, folder_of, keep, kept
from vmsim.jit.sources import implementations, stamp_of

__all__ = ["KernelCache"]


class KernelCache(FunctionCache):
    """numba's cache of a function, kept as this module says.

    Parameters
    ----------
    function : callable
        What is kept of it for other sources than those of today is not used (`vmsim.jit.sources`).
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = repr(function)
        self._py_func = function
        self._impl = _Impl(function)
        self._cache_path = self._impl.locator.get_cache_path()
        self._cache_file: _Files = _Files(self._cache_path, self._impl.filename_base, stamp_of(function))
        self.enable()

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return *super()._index_key(sig, codegen), implementations(sig)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super()._load_overload(sig, target_context)
        except Exception:
            # whole, but not of these libraries: as if it were not there
            self._cache_file.discard()
            return None


class _Locator(_CacheLocator):
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._py_file = function.__code__.co_filename
        self._lineno = function.__code__.co_firstlineno

    def ensure_cache_path(self) -> None:
        """Do nothing: `keep` makes the folder."""

    def get_cache_path(self) -> str:
        return str(folder_of(self._py_file) or "")

    def get_source_stamp(self) -> str:
        return stamp_of(self._function)

    def get_disambiguator(self) -> str:
        return str(self._lineno)


class _Impl(CompileResultCacheImpl):
    def __init__(self, function: Callable[..., Any]) -> None:
        # not numba's own: it takes locators by names from settings
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function)
        module = os.path.splitext(os.path.basename(function.__code__.co_filename))[0]
        name = f"{module}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))


class _Files(IndexDataCacheFile):
    """An index and data files, each with its digest."""

    def __init__(self, path: str, name: str, stamp: str) -> None:
        super().__init__(path, name, stamp)
        self._index = Path(self._index_path)
        self._keeping = bool(path)

    def discard(self) -> None:
        discard(self._index)

    def save(self, key: Any, data: Any) -> None:
        if not self._keeping:
            return
        kept = self._load_index()
        old = [other for other in kept if other != key and other[:-1] == key[:-1]]
        if old:  # of implementations that are no more: its file is written again
            kept[key] = kept.pop(old[0])
            self._save_index(kept)
        super().save(key, data)

    def _load_index(self) -> dict[Any, str]:
        data = kept(self._index) if self._keeping else None
        if data is None:
            return {}
        try:
            version, stamp, overloads = pickle.loads(data)
        except Exception:
            # of other versions of the libraries
            return {}
        found: dict[Any, str] = overloads if (version, stamp) == (self._version, self._source_stamp) else {}
        return found

    def _save_index(self, overloads: dict[Any, str]) -> None:
        keep(self._index, self._dump((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        data = kept(Path(self._data_path(name)))
        if data is None:
            raise FileNotFoundError(name)  # numba then compiles
        return pickle.loads(data)

    def _save_data(self, name: str, data: Any) -> None:
        keep(Path(self._data_path(name)), self._dump(data))
