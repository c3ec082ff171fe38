"""YAML files that hold a mapping: robots, arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_mapping(path: Path, error: type[ValueError]) -> dict[str, Any]:
    """Return the content of a file.

    Raises:
        error: unreadable, not YAML, or not a mapping; it names the file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise error(f'{path}: {fault}') from fault
    if not isinstance(content, dict):
        raise error(f'{path}: expected a mapping, got {type(content).__name__}')
    return content
