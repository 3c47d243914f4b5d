"""What public functions take: an argument that cannot be is one line that names it and says what can be."""

import inspect
import reprlib
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from resnetkit.errors import UsageError

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

_NAMES: dict[Any, str] = {
    Any: "anything",
    None: "None",
    type(None): "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "a dict",
}


def checked(*told: str, **remedies: str) -> Callable[[Callable[Parameters, Returned]], Callable[Parameters, Returned]]:
    """A function whose arguments are held against their annotations before it runs.

    It raises `UsageError` (exit code 2) for one that is missing, misspelt, or of another kind. `remedies` say for an
    argument what to do where the wrong kind is given; `told` are those of which the function itself tells what they may
    be.
    """

    def decorate(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
            signature, hints, name = _about(function)
            given = _bound(signature, name, args, kwargs)
            for argument, value in given.items():
                kind = hints.get(argument, Any)
                if argument not in told and not _fits(value, kind):
                    raise refusal(name, argument, value, _words(kind), remedies.get(argument))
            return function(*args, **kwargs)

        return call

    return decorate


def refusal(function: str, argument: str, value: object, takes: str, remedy: str | None = None) -> UsageError:
    """That an argument of a function cannot have a value; `takes` says what it can have."""
    return UsageError(f"{function}({argument}={shortened(value)}) cannot be", why=f"it takes {takes}", remedy=remedy)


def shortened(value: object) -> str:
    """What was given, so short that it leaves room for the rest of the line."""
    text = reprlib.repr(value) if isinstance(value, str | bytes | int | float | Collection | None) else ""
    return text if text and len(text) <= 60 and text.isprintable() else f"<{type(value).__name__}>"


@cache
def _about(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any], str]:
    """Its signature, the kinds of its arguments, and its name for people."""
    signature = inspect.signature(function)
    several = [name for name, each in signature.parameters.items() if each.kind == each.VAR_KEYWORD]
    hints = {name: kind for name, kind in get_type_hints(function).items() if name not in several}
    return signature, hints, function.__qualname__.removesuffix(".__init__")


def _bound(signature: inspect.Signature, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name."""
    parameters = signature.parameters.values()
    if any(each.kind == each.VAR_KEYWORD for each in parameters):  # there, a keyword may be called as a place is
        kwargs = {key: value for key, value in kwargs.items() if not _is_place(signature, key)}
    try:
        return signature.bind(*args, **kwargs).arguments
    except TypeError:
        pass
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    if not any(each.kind == each.VAR_KEYWORD for each in parameters):
        for unknown in kwargs.keys() - named:
            raise UsageError.unknown(f"argument of {name}()", unknown, [each for each in named if each != "self"])
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(args) > len(places):
        of_us = sum(each.name == "self" for each in places)
        raise UsageError(
            f"{name}() takes {len(places) - of_us} arguments without their names",
            why=f"there are {len(args) - of_us}",
            remedy=", ".join(f"{each.name}=…" for each in parameters if each.kind == each.KEYWORD_ONLY) or None,
        )
    if twice := [each.name for each in places[: len(args)] if each.name in kwargs]:
        raise UsageError(f"{name}() is given {twice[0]} twice")
    missing = [each for each in parameters if each.default is each.empty and each.kind <= each.KEYWORD_ONLY]
    missing = [each for each in missing if each.name not in kwargs and each not in places[: len(args)]]
    raise UsageError(f"{name}() lacks {', '.join(each.name for each in missing)}")


def _is_place(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    return parameter is not None and parameter.kind == parameter.POSITIONAL_ONLY


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated kind. Numbers of NumPy are numbers; text is no list."""
    origin = get_origin(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return True
    if origin is Annotated:
        return _fits(value, get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in get_args(kind))
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, PathLike)
    if origin is None:
        return value is None if kind is None else isinstance(value, kind)
    if not isinstance(value, origin) or isinstance(value, str | bytes):
        return False
    if origin in (list, tuple, Sequence, Collection) and get_args(kind):
        return all(_fits(each, get_args(kind)[0]) for each in value)
    return True


def _words(kind: Any) -> str:
    """An annotated kind, for people."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _words(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        *most, last = dict.fromkeys(_words(each) for each in get_args(kind))
        return f"{', '.join(most)} or {last}" if most else last
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if origin in (list, tuple, Sequence, Collection, Iterable):
        return f"a list of {_words(get_args(kind)[0])}".replace("a list of text", "a list of names")
    if origin is not None and issubclass(origin, Callable):
        return "a function"
    plain = origin or kind
    if plain in _NAMES:
        return _NAMES[plain]
    article = "an" if plain.__name__[0] in "AEIOUaeiou" else "a"
    return f"{article} {plain.__name__}"
