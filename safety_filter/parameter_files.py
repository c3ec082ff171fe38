"""Parameter files (YAML) of the user's, read as rcl reads them: sections, wildcards, order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from safety_filter.interfaces import NODES

LAST = "/**/**"  # a section for every node, which the graph writes for one: no user names it so
Values = dict[str, yaml.Node]  # parameter, groups joined with dots -> what the file says


def sections(path: Path) -> list[tuple[str, Values]]:
    """(node as the file names it, its parameters) in the order of the file.

    What stands outside of all sections comes first, under the name ''. Tags are not looked at:
    `launch_ros` writes !!python/tuple itself.

    Raises:
        ValueError: the file cannot be read, or has another form; it names the file.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise ValueError(f"{path}: expected a mapping of sections, got {root.id}")
    entries = _entries(root)
    outside = {k: v for k, v in entries if not isinstance(v, yaml.MappingNode)}
    found = [("", outside)] if outside else []
    for key, value in entries:
        for section, values in _walk(key, value) if key not in outside else ():
            if values is None:
                raise ValueError(f"{path}: {section}: expected ros__parameters")
            found.append((section, values))
    return found


def of_node(path: Path, node: str, namespace: str | None) -> dict[str, Any]:
    """What a file gives to a node; later sections win.

    namespace: None where nobody knows it, as that of a bag: the sections of all namespaces count,
    and what stands outside of them.

    Raises:
        ValueError: as `sections`, or one that names or almost names a node of the graph is for
            none of them. ROS takes no notice of such sections, and they may hold safety bounds.
    """
    given: Values = {}
    for section, values in sections(path):
        _check(path, section, namespace)
        if _fits(section, node, namespace):
            given |= values
    try:
        return {k: SafeConstructor().construct_object(v, True) for k, v in given.items()}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from error


def _fits(section: str, node: str, namespace: str | None) -> bool:
    """Whether ROS gives a section to a node: `*` stands for one name, `**` for any number."""
    words = _words(section)
    if namespace is None:
        return not words or words[-1] in (node, "*", "**")
    patterns = {"*": r"/\w+", "**": r"(/\w+)*"}
    pattern = "".join(patterns.get(w, "/" + re.escape(w)) for w in words)
    return bool(re.fullmatch(pattern, "".join(f"/{w}" for w in (*_words(namespace), node))))


def _check(path: Path, section: str, namespace: str | None) -> None:
    """Raises ValueError: a section that is meant for one of our nodes is for none."""
    if not section and namespace is not None:
        raise ValueError(f"{path}: expected sections such as /**/filter_node, got values alone")
    name = (_words(section) or [""])[-1]
    (near,) = difflib.get_close_matches(name, NODES, 1, 0.8) or [""]
    if near and not _fits(section, near, namespace):
        where = "" if namespace is None else f", which are in /{'/'.join(_words(namespace))}"
        raise ValueError(
            f"{path}: the section {section!r} is for none of the nodes{where}; write /**/{near}"
        )


def _words(name: str) -> list[str]:
    return [word for word in name.split("/") if word]


def _walk(section: str, content: yaml.Node) -> Iterator[tuple[str, Values | None]]:
    """Sections in and below one; None for the values of one that has something else."""
    for key, value in _entries(content):
        if key == "ros__parameters":
            yield section, dict(_flat(value))
        elif isinstance(value, yaml.MappingNode):
            yield from _walk(f"{section}/{key}", value)
        else:
            yield section, None


def _flat(values: yaml.Node, prefix: str = "") -> Iterator[tuple[str, yaml.Node]]:
    for key, value in _entries(values):
        if isinstance(value, yaml.MappingNode):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _entries(node: yaml.Node | None) -> list[tuple[str, yaml.Node]]:
    entries = node.value if isinstance(node, yaml.MappingNode) else []
    return [(str(key.value), value) for key, value in entries]
