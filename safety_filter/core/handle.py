"""Many arrays as one argument of compiled code.

numba unpacks every array anew that a compiled function is called with, 60 to 100 ns each: for the
fifty of a step as long as its kinematics. A handle is unpacked once, when it is made.
"""

from __future__ import annotations

from typing import Any

import numba as nb
from numba.core import types
from numba.experimental import structref
from numba.extending import overload


@structref.register
class _HandleType(types.StructRef):  # type: ignore[misc, name-defined]
    """What compiled code sees: `arrays` is the named tuple."""


class Handle(structref.StructRefProxy):  # type: ignore[misc]
    """Holds a named tuple of arrays; `handle.arrays` in compiled code. It shares their memory."""

    def __new__(cls, arrays: tuple[Any, ...]) -> Handle:
        """Take the arrays as they are now: what a name is bound to later does not count."""
        made: Handle = _make(arrays)
        return made


structref.define_boxing(_HandleType, Handle)


def _filled(arrays: Any) -> Any:
    """Return a handle of `arrays`, in compiled code only."""
    raise NotImplementedError


@overload(_filled)
def _compiled_filled(arrays: Any) -> Any:
    kind = _HandleType([('arrays', arrays)])

    def filled(arrays: Any) -> Any:
        handle = structref.new(kind)
        handle.arrays = arrays
        return handle
    return filled


@nb.njit(cache=True)
def _make(arrays: Any) -> Any:
    return _filled(arrays)
