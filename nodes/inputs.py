"""The check of everything that enters a node: one decorator, driven by the node's own schema.

ComfyUI checks the values of widgets and not what comes over a link, where other packs hand over numbers out of range,
NaN, numpy, lists, None of a muted switch, or another type altogether. `checked` converts what has one meaning and
refuses the rest in one sentence that names the input, before the node's code runs.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from comfy_api.latest import io

from ..infinitetalk_core.errors import InputError
from ..infinitetalk_core.number_lists import shortened
from .connections import CONVERTERS
from .host.media.foreign import number_of, unwrapped, what_is, written

Convert = Callable[[Any, str], Any]  # (value, name of the input) -> the value, or InputError
ROUNDING = 1e-6  # relative: 0.04 in 32 bits is a little less than 0.04
MOST_NAMED = 40  # options in an error message
NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD


def checked(function: Callable[..., Any] | None = None, **special: Convert) -> Any:
    """Decorate a node's `execute`, below @classmethod, so that its inputs are checked against the node's schema.

    special: by input, what converts its values in place of the rule for its type.
    """
    if function is None:
        return functools.partial(checked, **special)
    parameters = list(inspect.signature(function).parameters.values())[1:]

    @functools.wraps(function)
    def execute(cls: type[io.ComfyNode], *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip((p.name for p in parameters), args, strict=False)), **kwargs}
        values = check_inputs(cls.define_schema().inputs, given, special)
        for parameter in parameters:
            if parameter.name not in values and parameter.default is parameter.empty and parameter.kind is NAMED:
                raise InputError(f"{parameter.name} is not connected, and this node needs it")
        return function(cls, **values)

    return execute


def check_inputs(
    inputs: list[io.Input], given: Mapping[str, Any], special: Mapping[str, Convert] | None = None
) -> dict[str, Any]:
    """Return `given`, the values by input, checked and converted; without optional inputs whose value is None.

    inputs: of the node's schema; special: as for `checked`. Raises InputError for the first value that cannot be used.
    """
    names = [each.id for each in inputs]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise InputError(f"this node has no input {name!r}; {f'use {near[0]}' if near else 'remove it'}")
    values = {}
    for each in inputs:
        if each.id not in given or (given[each.id] is None and each.optional):
            continue
        value = given[each.id]
        if value is None:
            raise InputError(
                f"{each.id} got nothing, as from a muted node, and this node needs it; connect it to something that "
                "gives a value"
            )
        convert = (special or {}).get(each.id) or CONVERTERS.get(str(each.io_type)) or _widget(each)
        values[each.id] = convert(value, each.id)
    return values


def _widget(each: io.Input) -> Convert:
    """Return what checks the values of a widget, by its type and limits."""
    if isinstance(each, io.Int.Input):
        return functools.partial(whole_number, low=each.min, high=each.max)
    if isinstance(each, io.Float.Input):
        return functools.partial(number, low=each.min, high=each.max)
    if isinstance(each, io.Boolean.Input):
        return on_or_off
    if isinstance(each, io.Combo.Input):
        return functools.partial(choice, options=list(each.options))
    if isinstance(each, io.String.Input):
        return text
    return lambda value, name: value


def whole_number(value: Any, name: str, low: int, high: int) -> int:
    """Return `value` as int if it is a whole number of the range."""
    found = number_of(value)
    if found is None or (isinstance(found, float) and not found.is_integer()) or not low <= found <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, got {_got(found, value)}")
    return int(found)


def number(value: Any, name: str, low: float, high: float) -> float:
    """Return `value` as float if it is a number of the range, up to rounding to 32 bits."""
    found = number_of(value)
    least, most = low - ROUNDING * abs(low), high + ROUNDING * abs(high)
    if found is None or not least <= found <= most:  # NaN is in no range
        raise InputError(f"{name} must be a number from {low:g} to {high:g}, got {_got(found, value)}")
    return min(max(float(found), float(low)), float(high))


def on_or_off(value: Any, name: str) -> bool:
    """Return `value` as bool if it is one, or 0 or 1."""
    found = number_of(value)
    if found not in (0, 1):
        raise InputError(f"{name} must be on or off (true or false, 1 or 0), got {_got(found, value)}")
    return bool(found)


def text(value: Any, name: str) -> str:
    """Return `value` if it is text that can be stored: no NUL, no half of a surrogate pair."""
    found = unwrapped(value)
    if not isinstance(found, str):
        raise InputError(f"{name} must be a text, got {what_is(value)}")
    broken = next((c for c in found if c == "\0" or "\ud800" <= c <= "\udfff"), None)
    if broken is not None:
        raise InputError(
            f"{name} holds a character that is none (U+{ord(broken):04X}), as a broken copy leaves it; write it again, "
            f"got {shortened(found)!r}"
        )
    return str(found)


def choice(value: Any, name: str, options: list[str]) -> str:
    """Return `value` if it is one of `options`."""
    found = unwrapped(value)
    if not isinstance(found, str) or found not in options:
        got = repr(shortened(found)) if isinstance(found, str) else what_is(value)
        more = ", …" if len(options) > MOST_NAMED else ""
        raise InputError(f"{name} must be one of {', '.join(options[:MOST_NAMED])}{more}; got {got}")
    return str(found)


def _got(found: int | float | None, value: Any) -> str:
    return what_is(value) if found is None else written(found)
