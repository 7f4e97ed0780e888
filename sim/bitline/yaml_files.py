"""The one loader of YAML: mappings, lists and plain values of YAML 1.2, bounded in size, each thing meaning one thing.

What makes a short file large, or one text mean two numbers, is refused with its line:

- anchors, aliases and merge keys (``&a``, ``*a``, ``<<``): 400 bytes of them unfold to gigabytes;
- tags (``!!python/object``), a second document, a key given twice;
- numbers with leading zeros or in another base (``0100``, ``0o17``, ``0x1F``): YAML 1.1 reads ``0100`` as 64.

``yes``, ``no``, ``on``, ``off`` and ``2:08`` are text, as in YAML 1.2; ``1e-3`` is a number. A key is always text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from bitline.errors import ConfigError

__all__ = ["MAX_YAML_BYTES", "parse_yaml"]

MAX_YAML_BYTES = 1 << 17
"""Most bytes of a YAML file; the largest that ships has 9 kB."""

_MAX_DEPTH = 16
_MAX_VALUES = 20_000
_MAX_DIGITS = 40

_WHOLE = re.compile(r"[-+]?[0-9]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OTHER_BASE = re.compile(r"[-+]?0[xXoObB][0-9a-fA-F_]+")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _Refused(Exception):
    """A construct outside the subset, and the line it stands on."""

    def __init__(self, event: yaml.Event, reason: str) -> None:
        line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
        super().__init__(line + reason)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The fields of a YAML document.

    Parameters
    ----------
    text : str
    where : str
        What to call the file in messages.

    Returns
    -------
    dict
        Of text, integers, finite floats, booleans, none, lists and dictionaries.

    Raises
    ------
    ConfigError
        Too large, not YAML, not a mapping, or something the module's text lists as refused.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{where}: larger than {MAX_YAML_BYTES} bytes")
    try:
        fields = _Builder(yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except _Refused as refused:
        raise ConfigError(f"{where}: {refused}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        raise ConfigError(f"{where}: not valid YAML{line}: {reason}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: expected a mapping of fields, got {type(fields).__name__}")
    return fields


class _Builder:
    """Values from the parser's events, one at a time, so that a refusal comes before anything unfolds."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._values = 0

    def document(self) -> Any:
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(event, "a second document; expected one")
            elif not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentEndEvent):
                value = self._value(event, 0)
        return value

    def _value(self, event: yaml.Event, depth: int) -> Any:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise _Refused(event, f"more than {_MAX_VALUES} values")
        if depth > _MAX_DEPTH:
            raise _Refused(event, f"nested more than {_MAX_DEPTH} deep")
        self._plain(event)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
                items.append(self._value(inner, depth + 1))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            self._plain(key)
            if not isinstance(key, yaml.ScalarEvent):
                raise _Refused(key, "a key must be a name, not a list or mapping")
            if key.value == "<<" and not key.style:
                raise _Refused(key, "merge keys (<<) are not read; write the fields out")
            if key.value in mapping:
                raise _Refused(key, f"key {_short(key.value)} is given twice")
            mapping[key.value] = self._value(next(self._events), depth + 1)
        return mapping

    @staticmethod
    def _plain(event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(event, "anchors and aliases (& and *) are not read; write the value out, or quote it")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _Refused(event, f"tags are not read, got {_short(tag)}; write a plain value, or quote it")


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    text: str = event.value
    if event.style:  # quoted or a block
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _OTHER_BASE.fullmatch(text):
        raise _Refused(event, f"numbers are decimal, got {_short(text)}; write it in decimal, or quote it as text")
    if _NOT_FINITE.fullmatch(text):
        raise _Refused(event, f"numbers are finite, got {text}")
    if not _REAL.fullmatch(text):
        return text
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        raise _Refused(
            event, f"a leading zero may mean an octal number, got {_short(text)}; leave it out, or quote it as text"
        )
    if len(digits) > _MAX_DIGITS:
        raise _Refused(event, f"a number of more than {_MAX_DIGITS} characters, got {_short(text)}")
    if _WHOLE.fullmatch(text):
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(event, f"numbers are finite, got {_short(text)}")
    return value


def _short(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
