"""The methods of the comparison, by name."""

from __future__ import annotations

from safety_filter.bench.methods import (
    ablations,
    aegis,
    init_oracle,
    knows,
    naive,
    none,
    ours,
)
from safety_filter.bench.methods.base import Method

METHODS: dict[str, Method] = {m.name: m for m in (
    none.METHOD, naive.METHOD, init_oracle.METHOD, aegis.METHOD, knows.METHOD, ours.METHOD,
    ours.LIVE_ORACLE, *ablations.METHODS)}
