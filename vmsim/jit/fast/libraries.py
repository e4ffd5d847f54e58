"""Where numba puts the code it makes: not all of it optimised and made machine code by itself."""

from __future__ import annotations

from typing import Any

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

from numba.core.codegen import JITCodeLibrary

__all__ = ["Part", "Whole"]

# What is taken the place of below: in a numba without it, that would be without effect, and nobody would see.
for _name in ("_optimize_final_module", "_finalize_final_module", "codegen", "finalize"):
    getattr(JITCodeLibrary, _name)


class Whole(JITCodeLibrary):
    """The code of a kernel and of all it calls, which nothing else can call: unused arguments are not passed."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage.name == "linkonce_odr" and not function.is_declaration:
                function.linkage = "internal"
        super()._optimize_final_module()


class Part(JITCodeLibrary):
    """The code of a function that only kernels call: optimised and made machine code within them, and only there.

    numba does both for each function by itself as well, which took two thirds of the time to compile a walker.
    """

    inlined = False

    def _optimize_final_module(self) -> None:
        if not self.inlined:
            for function in self._final_module.functions:
                if function.linkage.name == "external" and not function.is_declaration:
                    function.add_function_attribute("noinline")

    def _finalize_final_module(self) -> None:
        self._finalized = True

    @property
    def codegen(self) -> Any:
        """Return what takes no environment."""
        return _NoEnvironment  # there is no machine code for numba to give its environment to


class _NoEnvironment:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Do nothing."""
