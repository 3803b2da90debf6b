"""Sections of a study as dataclasses, made from plain values and turned back into them.

Stages import this file, so it must not import pydantic.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, NoReturn, get_args, get_origin, get_type_hints

from annotated_types import Predicate

from assay import plugins

Place = tuple[Any, ...]  # the keys that lead to a value
Problems = Iterator[tuple[Place, str]]


class Unknown(Exception):
    """A value is needed that is missing or wrong, which is reported already."""


class _Unknown:
    """The place of a value that is missing or wrong: whatever is done with it raises `Unknown`."""

    def _use(self, *_: Any) -> NoReturn:
        raise Unknown

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = _use
    __eq__ = __hash__ = __lt__ = __le__ = __gt__ = __ge__ = _use
    __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __rmod__ = __floordiv__ = _use
    __rfloordiv__ = __truediv__ = __rtruediv__ = __or__ = __ror__ = __str__ = __format__ = _use


UNKNOWN: Any = _Unknown()


def known(make: Callable[[], Any]) -> Any:
    """Return what a function returns, or `UNKNOWN` where it needs what is unknown or missing."""
    try:
        return make()
    except (Unknown, KeyError):
        return UNKNOWN


def until_unknown(problems: Iterable[Any]) -> Iterator[Any]:
    """Yield what a generator yields until it needs a value that is unknown."""
    with suppress(Unknown):
        yield from problems


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a study, in which a key without a field is an error."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


def is_unique(values: list[Any]) -> bool:
    """Return whether no two values of a list are equal."""
    return all(value not in values[:index] for index, value in enumerate(values))


UNIQUE = Predicate(is_unique)


def plain(value: Any) -> Any:
    """Return settings as values of JSON, whole numbers as int, without fields that are None."""
    if is_dataclass(value):
        items = ((name, getattr(value, name)) for name in hints(type(value)))
        return {name: plain(item) for name, item in items if item is not None}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def build(kind: Any, value: Any) -> Any:
    """Make the instances of dataclasses that plain values describe.

    A field without a value or default becomes `UNKNOWN`, so that an error in one part of a study
    does not keep the others from being checked.
    """
    if not isinstance(value, dict) or (found := section(kind)) is None:
        return value
    types = keys(kind, value)
    given = {key: build(types[key], value[key]) for key in types if value.get(key) is not None}
    if not is_dataclass(found):
        return given
    return found(**dict.fromkeys(required(found), UNKNOWN) | given)


def section(kind: Any) -> Any:
    """Return the dataclass, or else the dict, that a type is or has among the members of a union.

    None where there is neither.
    """
    kind = bare(kind)
    members = [kind] if get_origin(kind) is dict else [kind, *get_args(kind)]
    return next(
        (each for each in members if is_dataclass(each)),
        next((each for each in members if get_origin(each) is dict), None),
    )


def keys(kind: Any, mapping: dict[str, Any]) -> dict[str, Any]:
    """Return the types of the values of a mapping by key: those that it has, or may have."""
    found = section(kind)
    if is_dataclass(found):
        return hints(found)
    return dict.fromkeys(mapping, get_args(found)[1]) if found else {}


def bare(kind: Any) -> Any:
    """Return a type without its bounds."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


@cache
def hints(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name, with their bounds; inherited ones last."""
    types = get_type_hints(kind, include_extras=True)
    names = (each.name for each in fields(kind))
    return {
        name: types[name] for name in sorted(names, key=lambda n: n not in kind.__annotations__)
    }


@cache
def required(kind: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields without a default."""
    return tuple(
        each.name for each in fields(kind) if each.default is each.default_factory is MISSING
    )


def chosen(study: dict[str, Any], kind: Any, place: Place = ()) -> Iterator[tuple]:
    """Yield where a study names plug-ins: the kind of plug-in, and the place."""
    named = is_dataclass(section(kind))
    for key, each in keys(kind, study).items():
        if named and key in plugins.KINDS and key in study:
            yield key, (*place, key)
        elif isinstance(study.get(key), dict):
            yield from chosen(study[key], each, (*place, key))


def value_at(study: Any, place: Place) -> Any:
    """Return the value to which keys lead."""
    for key in place:
        study = study[key]
    return study
