"""YAML with positions: the data, and for each key the line and column it stands at. Reads text, never files."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """The text is not YAML, or not a mapping; the message has file, line and column."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed mapping.

    Attributes:
        data: the mapping.
        places: (line, column), both from 1, of each key, by its path in the data.
    """

    data: dict[str, Any]
    places: dict[tuple[Any, ...], tuple[int, int]] = field(default_factory=dict)


def load(text: str, name: str) -> Document:
    """Parse *text*; *name* is the file's, for messages. Empty text is an empty mapping.

    Raises:
        YamlError: broken YAML, a key that stands twice, or something that is no mapping.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document({})
        if not isinstance(node, yaml.MappingNode):
            raise YamlError(f"{name}:1:1: expected keys and values, found something else")
        places: dict[tuple[Any, ...], tuple[int, int]] = {}
        _note(loader, node, (), places, name)
        return Document(loader.construct_document(node), places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise YamlError(f"{name}{where}: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise YamlError(f"{name}: {error}") from error
    finally:
        loader.dispose()


def _note(
    loader: Any, node: Any, path: tuple[Any, ...], places: dict[tuple[Any, ...], tuple[int, int]], name: str
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            here = (*path, key if isinstance(key, Hashable) else str(key))
            if here in places:
                raise YamlError(f"{name}:{place[0]}:{place[1]}: the key {key!r} stands here for the second time")
            places[here] = place
            _note(loader, value_node, here, places, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            places[(*path, index)] = (child.start_mark.line + 1, child.start_mark.column + 1)
            _note(loader, child, (*path, index), places, name)
