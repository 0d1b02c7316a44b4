"""YAML as kubectl reads it, so that `validate` sees what the API server would be sent.

kubectl (go.yaml.in/yaml/v2, then JSON) gives some unquoted words a type that differs from PyYAML's: to kubectl `y` and
`n` are booleans, `1e3` is a number, a date is a string, and keys that are numbers or booleans become strings.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from config.input.parsing import StrictLoader

_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NUMBER = r"(?=[-+]?[0-9.])(?!0[bBoOxX])[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"
_LARGEST_WHOLE = 1e21
"""From this number on, JSON writes a float with an exponent."""


def _words(words: frozenset[str]) -> str:
    return "|".join(map(re.escape, sorted(words)))


class KubectlLoader(StrictLoader):
    """The strict loader with kubectl's plain scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own way)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        return {_key(key): value for key, value in super().construct_mapping(node, deep).items()}

    def construct_yaml_bool(self, node: yaml.ScalarNode) -> bool:
        value = self.construct_scalar(node)
        if value not in _TRUE | _FALSE:
            raise ValueError(f"{value!r} is not a boolean")
        return value in _TRUE

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        digits = str(self.construct_scalar(node)).replace("_", "")
        # As in C, a leading zero makes a number octal; Python needs an `o` after the zero.
        return int(re.sub(r"^([-+]?)0(?=[0-7])", r"\g<1>0o", digits), 0)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float | int:
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        # JSON does not distinguish 80 from 80.0.
        return int(value) if abs(value) < _LARGEST_WHOLE and value.is_integer() else value


def _key(key: Hashable) -> Hashable:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key) if isinstance(key, (int, float)) else key


for _tag, _pattern, _first in (
    ("bool", _words(_TRUE | _FALSE), "yYnNtTfFoO"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|0[0-7_]*|[1-9][0-9_]*)", "-+0123456789"),
    ("float", _NUMBER, "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    KubectlLoader.add_implicit_resolver(_TAG + _tag, re.compile(f"(?:{_pattern})\\Z"), list(_first))
for _tag in ("bool", "int", "float"):
    KubectlLoader.add_constructor(_TAG + _tag, getattr(KubectlLoader, f"construct_yaml_{_tag}"))
