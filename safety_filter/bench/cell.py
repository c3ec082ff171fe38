"""What the shipped configuration declares of the simulated cell."""

from __future__ import annotations

from typing import Any

import yaml

from safety_filter.core.robot import config_dir


def declared(name: str, kind: type) -> dict[str, Any]:
    """The parameters in config/`name`.yaml that the dataclass `kind` has."""
    text = (config_dir().parent / f"{name}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            if k in kind.__dataclass_fields__}  # type: ignore[attr-defined]
