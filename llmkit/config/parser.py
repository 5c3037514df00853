"""Parses YAML with PyYAML; `llmkit.config.yaml` is what asks for it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from llmkit.config.documents import MOST_BYTES, MOST_DEPTH, MOST_NODES, SIZE, Document, YamlError

if TYPE_CHECKING:
    from llmkit.config.documents import Places

_LONGEST_NUMBER = 100  # digits; reading a number takes time that grows with the square of its length
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")  # the same types as in JSON
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"
_DATE = "tag:yaml.org,2002:timestamp"
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Reads the same types as JSON; a date stays a text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in known if tag != _DATE]
        for first, known in _Base.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar = {
        tag: make for tag, make in _Base.yaml_constructors.items() if tag is None or tag.rpartition(":")[2] in _TAGS
    }


def load(text: str, name: str) -> Document:
    """Return *text* parsed; *name* is the file's, for messages. Empty text is an empty mapping.

    Raises:
        YamlError: broken YAML, a duplicate key, something that is not a mapping, or too much of it.
    """
    loader = None
    try:
        _bound(text, name)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document({})
        if not isinstance(node, yaml.MappingNode):
            raise YamlError(f"{name}:1:1: expected keys and values, found something else")
        places: Places = {}
        _check(loader, node, name, set())
        _note(loader, node, (), places)
        return Document(loader.construct_document(node), places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error).split())
        raise YamlError(f"{_at(name, mark)}: {problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position if isinstance(error.position, int) else 0) + 1
        raise YamlError(f"{name}:{line}: a character that no YAML has: {error.reason}") from error
    except yaml.YAMLError as error:
        raise YamlError(f"{name}: {' '.join(str(error).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _bound(text: str, name: str) -> None:
    """Check that the text does not expand to too much."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise YamlError(f"{name}: this is no UTF-8 text") from error
    if size > MOST_BYTES:
        raise YamlError(f"{name}: more than {SIZE}")
    tally = _Tally()
    for event in yaml.parse(text, Loader=_Base):
        if complaint := tally.count(event):
            raise YamlError(f"{_at(name, event.start_mark)}: {complaint}")


class _Tally:
    """How many values and characters a text has, and how deep it is, with each alias expanded."""

    def __init__(self) -> None:
        self._values = self._characters = 0
        self._anchored: dict[str | None, tuple[int, int, int]] = {}  # of each anchor: values, characters, depth
        self._open: list[list[Any]] = []  # of each open collection: anchor, values and characters before it, its depth

    def count(self, event: yaml.Event) -> str:
        """Count an event; return what is wrong with it, or "" if nothing is."""
        values, characters, depth = 0, 0, 0
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, *_ in self._open):
                return f"{event.anchor!r} stands in itself"
            values, characters, depth = self._anchored.get(event.anchor, (1, 0, 0))
        elif isinstance(event, yaml.ScalarEvent):
            self._anchored[event.anchor] = values, characters, depth = 1, len(event.value), 0
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open.append([event.anchor, self._values, self._characters, 0])
            values = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values_before, characters_before, depth = self._open.pop()
            depth += 1
            self._anchored[anchor] = self._values - values_before, self._characters - characters_before, depth
        self._values += values
        self._characters += characters
        if self._open:
            self._open[-1][-1] = max(self._open[-1][-1], depth)
        return self._complaint(len(self._open) + depth)

    def _complaint(self, depth: int) -> str:
        if depth > MOST_DEPTH:
            return f"nested more than {MOST_DEPTH} levels deep"
        if self._values > MOST_NODES:
            return f"more than {MOST_NODES:,} values, aliases counted"
        return f"more than {SIZE}, aliases counted" if self._characters > MOST_BYTES else ""


def _check(loader: Any, node: Any, name: str, seen: set[int]) -> None:
    """Refuse duplicate keys, and values that look like numbers and cannot be read as such."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(loader, node, name)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check(loader, child, name, seen)
    else:
        keys: set[Any] = set()
        for key_node, value_node in node.value:
            _check(loader, key_node, name, seen)
            _check(loader, value_node, name, seen)
            if key_node.tag == _MERGE:
                continue
            if (key := _key(loader, key_node)) in keys:
                raise YamlError(f"{_at(name, key_node.start_mark)}: the key {key!r} stands here for the second time")
            keys.add(key)


def _check_scalar(loader: Any, node: yaml.ScalarNode, name: str) -> None:
    if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
        raise YamlError(f"{_at(name, node.start_mark)}: a number of {len(node.value)} digits")
    if node.tag == _MERGE:
        return
    try:
        loader.construct_object(node)
    except (ValueError, LookupError) as error:
        kind = node.tag.rpartition(":")[2]
        raise YamlError(f"{_at(name, node.start_mark)}: {node.value[:40]!r} is no {kind}") from error


def _note(loader: Any, node: Any, path: tuple[Any, ...], places: Places) -> None:
    """Record the place of each key, and insert what `<<` merges."""
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            here = (*path, _key(loader, key_node))
            places[here] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            _note(loader, value_node, here, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            places[(*path, index)] = (child.start_mark.line + 1, child.start_mark.column + 1)
            _note(loader, child, (*path, index), places)


def _key(loader: Any, node: Any) -> Any:
    key = loader.construct_object(node, deep=True)
    return key if isinstance(key, Hashable) else str(key)


def _at(name: str, mark: Any) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
