"""`core.params` tables as declared ROS parameters: ranges, texts, validated updates."""

from __future__ import annotations

import difflib
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from safety_filter import parameter_files
from safety_filter.core.params import Param, ParamError, ParamTable

T = TypeVar("T")
# Bounds of a range with one open end; the table itself is what is enforced
_HUGE = sys.float_info.max
_INT_HUGE = 2**63 - 1


def descriptor(row: Param) -> ParameterDescriptor:
    """ROS descriptor of one row; dynamic typing, because the table checks types itself."""
    result = ParameterDescriptor(
        name=row.name,
        description=f"{row.text} [{row.unit or '-'}]",
        additional_constraints=", ".join(row.choices),
        dynamic_typing=True,
        read_only=False,
    )
    number = isinstance(row.default, int | float) and not isinstance(row.default, bool)
    if number and (row.lo is not None or row.hi is not None):
        if isinstance(row.default, float):
            low, high = row.lo, row.hi
            span = FloatingPointRange(
                from_value=-_HUGE if low is None else float(low),
                to_value=_HUGE if high is None else float(high),
            )
            result.floating_point_range = [span]
        else:
            result.integer_range = [
                IntegerRange(
                    from_value=-_INT_HUGE if row.lo is None else int(row.lo),
                    to_value=_INT_HUGE if row.hi is None else int(row.hi),
                )
            ]
    return result


class ParameterSet(Generic[T]):
    """One table declared on a node; `value` is always a validated instance.

    `prefix` separates several tables of one node (`filter.alpha0`). A bad update keeps the old
    set and is answered with the reason: the table's, or that of `check`, which says what speaks
    against the new set. Applied (`value`, then `changed` with the new set and what was changed) is
    an update once every table of the node has agreed: it may have parts of several.
    """

    def __init__(
        self,
        node: Node,
        table: ParamTable[T],
        prefix: str = "",
        changed: Callable[[T, Mapping[str, object]], None] | None = None,
        check: Callable[[T], str | None] | None = None,
    ) -> None:
        """Declare the table's rows on `node`.

        Raises:
            ParamError: the values given at start are not valid; every fault is listed.
        """
        self._table = table
        self._prefix = prefix
        self._changed, self._check = changed, check
        given: dict[str, object] = {}
        for row in table.rows:
            default: Any = list(row.default) if isinstance(row.default, tuple) else row.default
            # Ranges come afterwards: the table's own faults are clearer, and it lists all of them
            free = ParameterDescriptor(dynamic_typing=True)
            given[row.name] = node.declare_parameter(prefix + row.name, default, free).value
        self.value: T = table.validate(given)
        for row in table.rows:
            node.set_descriptor(prefix + row.name, descriptor(row))
        node.add_on_set_parameters_callback(self._on_set)
        node.add_post_set_parameters_callback(self._after_set)

    def _own(self, parameters: list[Parameter]) -> dict[str, object]:
        names = {row.name for row in self._table.rows}
        return {
            p.name[len(self._prefix) :]: p.value
            for p in parameters
            if p.name.startswith(self._prefix) and p.name[len(self._prefix) :] in names
        }

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        if not (changes := self._own(parameters)):
            return SetParametersResult(successful=True)
        try:
            value = self._table.update(self.value, changes)
            fault = self._check(value) if self._check is not None else None
        except ParamError as error:
            fault = str(error)
        return SetParametersResult(successful=fault is None, reason=fault or "")

    def _after_set(self, parameters: list[Parameter]) -> None:
        if changes := self._own(parameters):
            self.value = self._table.update(self.value, changes)
            if self._changed is not None:
                self._changed(self.value, changes)


def unknown(node: Node, words: Sequence[str]) -> list[str]:
    """What the command line `words` gives to `node` that it has not declared, in words.

    rcl takes no notice of it, and a misspelt name may be a safety bound. Looked at are -p and the
    sections of parameter files that name the node; a section for all nodes may be for others.
    """
    names = node.list_parameters([], 0).names
    problems = []
    for kind, word in itertools.pairwise(words):
        if kind in ("-p", "--param"):
            given = [_own(node, word.partition(":=")[0])]
        elif kind == "--params-file":
            try:
                found = parameter_files.sections(Path(word))
            except ValueError as error:
                problems.append(f"file {error}")
                continue
            mine = (parameter_files.LAST, node.get_name())
            given = [n for name, v in found if {name, name.split("/")[-1]} & {*mine} for n in v]
        else:
            continue
        for name in given:
            if name in names or name == "" or name.startswith("qos_overrides."):
                continue
            near = difflib.get_close_matches(name, names, 1)
            problems.append(f"{name}: unknown{f'; did you mean {near[0]}?' if near else ''}")
    return problems


def _own(node: Node, name: str) -> str:
    """The parameter that `[NODE:]NAME` sets on `node`, '' if it is another's."""
    other, _, own = name.rpartition(":")
    return own if other.rsplit("/", 1)[-1] in ("", node.get_name()) else ""
