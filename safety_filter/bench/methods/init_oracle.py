"""True state of all obstacles and of the target at the start, never updated; our filter."""

from __future__ import annotations

from safety_filter.bench.methods.base import Method
from safety_filter.bench.methods.ours import Filter

METHOD = Method("init-oracle", "true state at the start, never updated; our filter's geometry",
                Filter, "start")
