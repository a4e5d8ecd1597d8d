"""The command `liquid-ssm generate`.

Exit codes: 0 the data are written, 2 usage or input error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from ..console import check_folder, check_target, progress, write_json, writing
from ..data_folder import sparse
from ..errors import BackendUnavailable, ParameterError, unknown_name
from . import GENERATORS, get_generator

# What every generator takes, by options of their own.
_SHARED = ("folder", "seed", "progress")
_PARTS = ("train", "validation", "test")


def generate(
    generator: Annotated[str | None, typer.Argument(metavar="TASK", help=f"{', '.join(GENERATORS)}.")] = None,
    to: Annotated[str | None, typer.Option(metavar="DIR", help="Folder to write into, new or empty.")] = None,
    seed: Annotated[int, typer.Option(metavar="K", min=0, help="Of everything that is drawn.")] = 0,
    count: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=N", help="Samples of a part, such as train=2000; repeatable."),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An option of the generator, see --list; repeatable."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Print the generators with their options and defaults; nothing is written.")
    ] = False,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="PATH", help="Write JSON; - for standard output, which then carries only it."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Write data in the layout of a task's real data: ListOps as published, and stand-ins for the other tasks."""
    if list_:
        _print_list([generator] if generator is not None else list(GENERATORS))
        return
    if generator is None or to is None:
        wanted = "the name of a task" if generator is None else "a folder, --to DIR"
        raise ParameterError(f"generate needs {wanted}; tasks: {', '.join(GENERATORS)}. --list prints their options.")
    make = get_generator(generator)
    given = options_of(generator, make, count or [], set or [])
    check_folder("--to", to)
    check_target("--json", json)
    with progress(quiet) as step, writing("--to", to):
        made = make(Path(to), seed=seed, progress=sparse(step), **given)
    from ..report import dump_json

    write_json(dump_json({**asdict(made), "folder": to}), json)
    if quiet or json == "-":
        return
    counts = ", ".join(f"{number:,} {part}" for part, number in made.counts.items())
    print(f"{generator}: {counts}; seed {seed}, in {to}")


def options_of(name: str, make: Callable[..., Any], counts: Sequence[str], options: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of a generator from `PART=N` and `NAME=VALUE`, by the types of its signature.

    Raises:
        ParameterError: an unknown name, a value of another type, or a name that is given twice.
    """
    known = _options(make)
    types = get_type_hints(make)
    found: dict[str, Any] = {}
    for text in counts:
        part, value = _split("--count", "PART=N", text)
        if "counts" in known:
            parts = known["counts"] if isinstance(known["counts"], Mapping) else dict.fromkeys(_PARTS)
            _check_known(f"part of {name}", part, parts)
            taken = found.setdefault("counts", {})
        else:
            numbers = [option for option in known if types.get(option) is int]
            _check_known(f"part of {name}", part, [option for option in _PARTS if option in numbers] or numbers)
            taken = found
        _put(taken, part, _value(f"--count {part}", int, value))
    for text in options:
        option, value = _split("--set", "NAME=VALUE", text)
        _check_known(f"option of {name}", option, [key for key in known if key != "counts"])
        _put(found, option, _value(f"--set {option}", types.get(option, str), value))
    return found


def _options(make: Callable[..., Any]) -> dict[str, Any]:
    """Default values of a generator's own options."""
    parameters = inspect.signature(make).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name not in _SHARED}


def _split(option: str, form: str, text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name:
        raise ParameterError(f"{option} {text!r} is not of the form {form}.")
    return name.strip().replace("-", "_"), value.strip()


def _check_known(kind: str, name: str, allowed: Any) -> None:
    if name not in allowed:
        raise unknown_name(kind, name, allowed)


def _put(taken: dict[str, Any], name: str, value: Any) -> None:
    if name in taken:
        raise ParameterError(f"{name} is given twice; give it once.")
    taken[name] = value


def _value(option: str, kind: Any, text: str) -> Any:
    """A value as an option's type has it: a number, text, yes or no, or several of them separated by commas."""
    kinds = [each for each in get_args(kind) if each not in (type(None), ...)]
    if type(None) in get_args(kind) and text.lower() == "none":
        return None
    origin = getattr(kind, "__origin__", None)
    if kinds and origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return tuple(_value(option, kinds[0], item.strip()) for item in text.split(",") if item.strip())
    if kinds:
        return _value(option, kinds[0], text)
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise ParameterError(f"{option} is {text!r}; expected true or false.")
        return words[text.lower()]
    try:
        return kind(text)
    except (TypeError, ValueError):
        article = {int: "a whole number", float: "a number"}.get(kind, f"a value of type {kind}")
        raise ParameterError(f"{option} is {text!r}; expected {article}.") from None


def _print_list(names: Sequence[str]) -> None:
    for name in names:
        try:
            make = get_generator(name)
        except BackendUnavailable as missing:
            print(f"{name}: {missing}")
            continue
        print(f"{name}: {(inspect.getdoc(make) or '').splitlines()[0]}")
        for option, default in _options(make).items():
            print(f"  {option} = {default}")
