"""Bounds for the figures and texts of a description, as annotations of pydantic fields.

``power_mw: Annotated[float, Bounded(0, 1e9)]`` is checked, and stands in the JSON schema as minimum and maximum. On a
model with a ``value``, as ``Annotated[Figure, Bounded(1e-3, 1e9)]``, the value is bounded.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = ["Bounded", "ComponentName", "Line", "Source"]


@dataclass(frozen=True)
class Bounded:
    """A number between two bounds, both included: far beyond anything built, near enough that sums stay finite."""

    least: float
    most: float
    or_zero: bool = False
    """Whether zero is allowed too (``least`` then bounds the others)."""

    def __str__(self) -> str:
        span = f"{self.least:g}..{self.most:g}".replace("e+0", "e").replace("e+", "e")
        return f"0 or {span}" if self.or_zero else span

    def _holds(self, value: float) -> bool:
        return self.least <= value <= self.most or (self.or_zero and value == 0)

    def _number(self, value: object) -> object:
        if isinstance(value, bool) or not (isinstance(value, int | float) or hasattr(value, "__index__")):
            raise ValueError("must be a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must be a finite number")
        if not self._holds(value):  # type: ignore[arg-type]
            raise ValueError(f"must lie in {self}")
        return value

    def _whole(self, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("must be an integer, not a boolean")
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise ValueError("must be an integer") from None
        if not self._holds(number):
            raise ValueError(f"must lie in {self}")
        return number

    def _figure(self, figure: Any) -> Any:
        value = figure.get("value") if isinstance(figure, dict) else getattr(figure, "value", None)
        # anything but a number is told by the model itself
        if isinstance(value, int | float) and not isinstance(value, bool) and not self._holds(value):
            raise PydanticCustomError(
                "figure_out_of_bounds", "must lie in {bounds}", {"bounds": str(self), "at": "value", "got": value}
            )
        return figure

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if isinstance(source, type) and issubclass(source, BaseModel):
            return core_schema.no_info_before_validator_function(self._figure, schema)
        return core_schema.no_info_before_validator_function(self._whole if source is int else self._number, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        limits: dict[str, Any] = {"minimum": 0 if self.or_zero else self.least, "maximum": self.most}
        if "$ref" in found:
            return {**found, "properties": {"value": limits}}
        return {**found, **limits}


# Control characters, line and paragraph separators, and what turns the direction of text: none of them is seen, and a
# terminal obeys them.
_UNSEEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_FOUND = re.compile(f"[{_UNSEEN}]")


def _line(value: str) -> str:
    found = _FOUND.search(value)
    if found:
        raise ValueError(f"must be one line of text without control characters, found {found.group()!r}")
    return value


def _source(value: str) -> str:
    if len(value.strip()) < 3:
        raise ValueError("must say where the number was read, in 3 characters or more")
    return value


_PATTERN = {"pattern": f"^[^{_UNSEEN}]*$"}
_LONGEST = 1000

ComponentName = Annotated[str, AfterValidator(_line), Field(min_length=1, max_length=100)]
"""A key that names a component: without a pattern, which would hide the values' model from the schema's readers."""

Line = Annotated[str, AfterValidator(_line), Field(max_length=_LONGEST, json_schema_extra=_PATTERN)]
"""One line of text without control characters."""

Source = Annotated[
    str,
    AfterValidator(_line),
    AfterValidator(_source),
    Field(min_length=3, max_length=_LONGEST, json_schema_extra=_PATTERN),
]
"""Where a number was read: a line of at least 3 characters that is not blank."""
