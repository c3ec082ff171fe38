"""Parameters declared once: name, default, unit, range, text, and if they may change at run time.

Two ways to declare a table, both with the same checks::

    @dataclass(frozen=True)
    class LoopParams:
        rate: float = param(250.0, 'Hz', 100.0, 1000.0, 'rate of the loop')

    TABLE = ParamTable.of(LoopParams)                 # typed
    TABLE = ParamTable([Param('rate', 250.0, 'Hz', 100.0, 1000.0, 'rate of the loop')])

`validate` turns a mapping (YAML, ROS parameters) into an instance or raises one `ParamError` that
lists every fault. NaN and infinities are rejected for every number. A bad update keeps the old
set, because `update` returns a new instance and touches nothing when it raises.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Value = bool | int | float | str | tuple[float, ...] | tuple[str, ...]
T = TypeVar('T')

_META = 'safety_filter.param'


class ParamError(ValueError):
    """One or more parameters are wrong; `problems` holds one line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__('; '.join(self.problems))


@dataclass(frozen=True)
class Param:
    """One parameter; `lo` and `hi` are inclusive and apply to each element of a tuple."""

    name: str
    default: Value
    unit: str
    lo: float | None
    hi: float | None
    text: str
    runtime: bool = False
    choices: tuple[str, ...] = ()

    def convert(self, value: object) -> Value:
        """Return `value` in the type of the default, range-checked.

        Raises:
            ParamError: wrong type, not finite, out of range, or not one of the choices.
        """
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise self._error('true or false', value)
            return value
        if isinstance(self.default, str):
            if not isinstance(value, str):
                raise self._error('a string', value)
            if self.choices and value not in self.choices:
                raise self._error('one of ' + ', '.join(self.choices), value)
            return value
        if isinstance(self.default, tuple):
            if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
                raise self._error('a list', value)
            items = list(value)
            if any(isinstance(v, str) for v in (*self.default, *items)):
                if not all(isinstance(v, str) for v in items):
                    raise self._error('a list of strings', value)
                return tuple(str(v) for v in items)
            return tuple(self._number(v) for v in items)
        number = self._number(value)
        if isinstance(self.default, int):
            if number != int(number):
                raise self._error('an integer', value)
            return int(number)
        return number

    def _number(self, value: object) -> float:
        if isinstance(value, bool) or not hasattr(value, '__float__'):
            raise self._error('a number', value)
        number = float(value)
        if not math.isfinite(number):
            raise self._error('a finite number', value)
        below = self.lo is not None and number < self.lo
        if below or (self.hi is not None and number > self.hi):
            raise self._error(self.range_text(), value)
        return number

    def range_text(self) -> str:
        """Return the allowed range in words, with the unit."""
        unit = '' if self.unit in ('', '-') else f' {self.unit}'
        if self.choices:
            return ', '.join(self.choices)
        if self.lo is not None and self.hi is not None:
            return f'{self.lo:g} to {self.hi:g}{unit}'
        if self.lo is not None:
            return f'at least {self.lo:g}{unit}'
        if self.hi is not None:
            return f'at most {self.hi:g}{unit}'
        return 'any'

    def _error(self, expected: str, got: object) -> ParamError:
        return ParamError([f'{self.name}: expected {expected}, got {got!r}'])


def param(default: Any, unit: str, lo: float | None, hi: float | None, text: str,
          runtime: bool = False, choices: tuple[str, ...] = ()) -> Any:
    """Return a dataclass field that carries its `Param`; see `ParamTable.of`."""
    meta = {_META: (unit, lo, hi, text, runtime, choices)}
    return dataclasses.field(default=default, metadata=meta)


def pose_fault(name: str, xyz: Sequence[float], xyzw: Sequence[float]) -> str | None:
    """What is wrong with the parameters `name`_xyz and `name`_xyzw (unit quaternion), or None."""
    if len(xyz) != 3 or len(xyzw) != 4:
        return (f'{name}_xyz, {name}_xyzw: expected 3 and 4 numbers, got {len(xyz)} and'
                f' {len(xyzw)}')
    norm = math.hypot(*xyzw)
    if abs(norm - 1.0) > 1e-3:
        return f'{name}_xyzw: expected a unit quaternion, got norm {norm:g}'
    return None


class ParamTable(Generic[T]):
    """The parameters of one component, and the dataclass that holds their values.

    `checks` are cross-checks: each takes an instance and returns a sentence naming both values, or
    None.
    """

    def __init__(self, rows: Sequence[Param], cls: type[T] | None = None,
                 checks: Sequence[Callable[[T], str | None]] = ()) -> None:
        self.rows = tuple(rows)
        self._by_name = {row.name: row for row in self.rows}
        if len(self._by_name) != len(self.rows):
            names = [row.name for row in self.rows]
            raise ParamError([f'{n}: declared twice' for n in self._by_name if names.count(n) > 1])
        self.checks = tuple(checks)
        if cls is None:
            fields = [(row.name, type(row.default), dataclasses.field(default=row.default))
                      for row in self.rows]
            made: Any = dataclasses.make_dataclass('Params', fields, frozen=True)
            cls = made
        assert cls is not None
        self.cls: type[T] = cls
        self.validate({})

    @classmethod
    def of(cls, params: type[T],
           checks: Sequence[Callable[[T], str | None]] = ()) -> ParamTable[T]:
        """Return the table of a dataclass whose fields were made with `param`."""
        rows = []
        as_dataclass: Any = params
        for field in dataclasses.fields(as_dataclass):
            default: Any = field.default
            unit, lo, hi, text, runtime, choices = field.metadata[_META]
            rows.append(Param(field.name, default, unit, lo, hi, text, runtime, choices))
        return cls(rows, params, checks)

    def __getitem__(self, name: str) -> Param:
        return self._by_name[name]

    def defaults(self) -> dict[str, Value]:
        """Return name -> default."""
        return {row.name: row.default for row in self.rows}

    def validate(self, values: Mapping[str, object]) -> T:
        """Return an instance with `values` over the defaults.

        Raises:
            ParamError: names every unknown, ill-typed, out-of-range or inconsistent parameter.
        """
        problems: list[str] = []
        accepted: dict[str, Any] = dict(self.defaults())
        for name, value in values.items():
            if name not in self._by_name:
                near = difflib.get_close_matches(name, self._by_name, 1)
                hint = f'; did you mean {near[0]}?' if near else ''
                problems.append(f'{name}: unknown parameter{hint}')
                continue
            try:
                accepted[name] = self._by_name[name].convert(value)
            except ParamError as error:
                problems += error.problems
        if problems:
            raise ParamError(problems)
        instance = self.cls(**accepted)
        found = [check(instance) for check in self.checks]
        problems = [text for text in found if text is not None]
        if problems:
            raise ParamError(problems)
        return instance

    def update(self, current: T, changes: Mapping[str, object]) -> T:
        """Return `current` with `changes`, all of which must be allowed while running.

        Raises:
            ParamError: as `validate`, and for a parameter fixed at start; `current` stands.
        """
        fixed = [f'{name}: fixed at start, restart to change it' for name in changes
                 if name in self._by_name and not self._by_name[name].runtime]
        if fixed:
            raise ParamError(fixed)
        values = {row.name: getattr(current, row.name) for row in self.rows}
        return self.validate({**values, **changes})

    def markdown(self) -> str:
        """Return the table for a README."""
        lines = ['| parameter | default | unit | range | while running | meaning |',
                 '|---|---|---|---|---|---|']
        for row in self.rows:
            many = isinstance(row.default, tuple)
            default = ', '.join(map(str, row.default)) if many else row.default  # type: ignore
            lines.append(f'| `{row.name}` | {default} | {row.unit} | {row.range_text()} '
                         f'| {"yes" if row.runtime else "no"} | {row.text} |')
        return '\n'.join(lines) + '\n'
