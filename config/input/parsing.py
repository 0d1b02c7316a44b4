"""Bytes of a YAML or JSON file to plain values, strictly and within bounds. Pure; never raises anything but FileFault.

YAML is read as PyYAML's safe loader reads it, with three differences:
- a key that appears twice in one mapping is a fault: YAML forbids it, and PyYAML would quietly take the later one;
- merge keys (`<<`) are bounded, since they can make a small file grow without limit;
- the depth is bounded, since PyYAML's C parser recurses on the C stack, so a deep file would crash the process.
"""

from __future__ import annotations

import json

import yaml

from config.input.faults import shown

MAX_BYTES = 32 << 20
_MAX_DEPTH = 100
_MERGE = "tag:yaml.org,2002:merge"
_MAX_MERGED = 4096
_MAX_MERGE_LIST = 16
_MAX_TEXT = 160


class FileFault(ValueError):
    """The file as a whole can't be read. The text has the line where there is one."""


class StrictLoader(yaml.CSafeLoader):
    """Plain values only; refuses what the module's docstring names."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._flattened: dict[int, yaml.MappingNode] = {}
        """id() of a mapping -> the mapping, once its merge keys are resolved. PyYAML comes back to a mapping for each
        one into which it is merged. By then its merged keys are in place, and would look like duplicates."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolves the merge keys of a mapping; PyYAML calls it for every mapping."""
        if id(node) in self._flattened:
            return
        self._flattened[id(node)] = node
        seen: set[str] = set()
        merges = False
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _refusal(key, _duplicate(key.value))
                seen.add(key.value)
            if key.tag == _MERGE:
                merges = True
                if isinstance(value, yaml.SequenceNode) and len(value.value) > _MAX_MERGE_LIST:
                    raise _refusal(node, f"merges (<<) more than {_MAX_MERGE_LIST} mappings")
        super().flatten_mapping(node)
        if merges and len(node.value) > _MAX_MERGED:
            raise _refusal(node, f"merges (<<) more than {_MAX_MERGED} keys")


def parse_yaml(data: bytes, loader: type[StrictLoader] = StrictLoader) -> list[object]:
    """The documents of a file; None for an empty one. Raises FileFault."""
    text = _decoded(data)
    try:
        _check_depth(text)
        return list(yaml.load_all(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise FileFault(f"{place}does not parse: {_one_line(error.problem or error.context or '')}") from None
    except RecursionError:
        raise FileFault("is nested too deeply") from None
    except FileFault:
        raise
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # PyYAML's constructors raise any of these for scalars that only look like a number or a time.
        raise FileFault(f"does not parse: {_one_line(str(error))}") from None


def parse_json(data: bytes) -> object:
    """Raises FileFault."""
    text = _decoded(data)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise FileFault(f"line {error.lineno}: does not parse: {error.msg}") from None
    except RecursionError:
        raise FileFault("is nested too deeply") from None
    except ValueError as error:  # a duplicate key, or a number of thousands of digits
        raise FileFault(f"does not parse: {_one_line(str(error))}") from None


def _decoded(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise FileFault(f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileFault(f"line {line}: is not UTF-8 text") from None


def _check_depth(text: str) -> None:
    """Raises FileFault."""
    openers = text.count("[") + text.count("{")
    longest = max(map(len, text.splitlines()), default=0)
    # Most files need no closer look. Block collections nest by indentation: at most two levels for each column.
    if openers + 2 * longest <= _MAX_DEPTH * 4:
        return
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > _MAX_DEPTH:
                place = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
                raise FileFault(f"{place}is nested too deeply; at most {_MAX_DEPTH} levels are read")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(_duplicate(key))
        found[key] = value
    return found


def _duplicate(key: str) -> str:
    return f"key {shown(key)} appears twice"


def _refusal(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _MAX_TEXT else words[: _MAX_TEXT - 3] + "..."
