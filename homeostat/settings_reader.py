"""A TOML file and HOMEOSTAT_* variables -> a frozen dataclass, with errors that name the key."""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from homeostat.errors import SettingsError
from homeostat.words import Rate, Size, parse_duration, parse_rate, parse_size

T = TypeVar("T")
PREFIX = "HOMEOSTAT_"


def read(type_: type[T], file: Path, environ: Mapping[str, str]) -> T:
    try:
        table = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise SettingsError(
            "no such file; make a project with `homeostat init NAME`, or name one with --project",
            file=str(file),
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"not valid TOML: {error}", file=str(file)) from None
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}", file=str(file)) from None
    reader = _Reader(file)
    if "project" in table:
        raise reader.fail("project", "no such key: it is the folder of this file")
    table = reader.overridden(type_, table, environ)
    table["project"] = str(file.parent)
    settings: T = reader.dataclass(type_, table, "")
    return settings


def hints(type_: type) -> dict[str, Any]:
    return get_type_hints(type_, include_extras=True)


def bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


class _Reader:
    def __init__(self, file: Path) -> None:
        self.file = file

    def fail(self, key: str, message: str) -> SettingsError:
        return SettingsError(message, file=str(self.file), key=key)

    def dataclass(self, type_: type, table: Mapping[str, Any], key: str) -> Any:
        known = {f.name: f for f in fields(type_)}
        for name in table:
            if name not in known:
                raise self.fail(f"{key}{name}", f"no such key{nearest(name, known)}")
        values = {}
        for name, hint in hints(type_).items():
            if name in table:
                values[name] = self.value(bare(hint), table[name], f"{key}{name}")
            elif known[name].default is MISSING and known[name].default_factory is MISSING:
                raise self.fail(f"{key}{name}", "missing; " + doc(hint))
            elif isinstance(default := known[name].default, Path):
                values[name] = self.path(default)
        return type_(**values)

    def path(self, value: str | Path) -> Path:
        return (self.file.parent / Path(value).expanduser()).resolve()

    def value(self, hint: Any, value: Any, key: str) -> Any:
        if get_origin(hint) in (Union, types.UnionType):
            return self.value(next(h for h in get_args(hint) if h is not type(None)), value, key)
        if _is_section(hint):
            if not isinstance(value, dict):
                raise self.fail(key, f"a section [{key}], not {shown(value)}")
            return self.dataclass(hint, value, f"{key}.")
        if get_origin(hint) is tuple:
            return self.sequence(get_args(hint)[0], value, key)
        if get_origin(hint) is Literal or (isinstance(hint, type) and issubclass(hint, StrEnum)):
            return self.choice(hint, value, key)
        return self.scalar(hint, value, key)

    def sequence(self, hint: Any, value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise self.fail(key, f"a list, not {shown(value)}")
        return tuple(self.value(hint, item, f"{key}[{i}]") for i, item in enumerate(value))

    def choice(self, hint: Any, value: Any, key: str) -> Any:
        allowed = get_args(hint) or tuple(str(member) for member in hint)
        if value not in allowed:
            choices = ", ".join(f'"{item}"' for item in allowed)
            raise self.fail(key, f"one of {choices}, not {shown(value)}{nearest(value, allowed)}")
        return value if get_origin(hint) is Literal else hint(value)

    def scalar(self, hint: Any, value: Any, key: str) -> Any:
        try:
            if hint is timedelta:
                return parse_duration(_text(value, "a duration in words"))
            if hint is Rate:
                return parse_rate(_text(value, "a rate in words"))
            if hint is Size:
                return parse_size(_text(value, "a size in words"))
        except ValueError as error:
            raise self.fail(key, str(error)) from None
        if hint is Path:
            if isinstance(value, str) and value:
                return self.path(value)
            raise self.fail(key, f"a path in quotes, not {shown(value)}")
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise self.fail(key, f"{_KINDS[hint]}, not {shown(value)}")
        return value

    def overridden(
        self, type_: type, table: dict[str, Any], environ: Mapping[str, str]
    ) -> dict[str, Any]:
        """The table with what HOMEOSTAT_* variables say instead."""
        keys = dict(_overridable(type_))
        named_elsewhere = set(_named_variables(table))
        table = {k: dict(v) if isinstance(v, dict) else v for k, v in table.items()}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or variable in named_elsewhere:
                continue
            if variable not in keys:
                raise SettingsError(
                    f"no such setting{nearest(variable, keys)}", file="environment", key=variable
                )
            (*section, name), hint = keys[variable]
            target = table.setdefault(section[0], {}) if section else table
            if isinstance(target, dict):  # else the reader says what is wrong with it
                target[name] = _from_text(hint, text)
        return table


def _is_section(hint: Any) -> bool:
    return is_dataclass(hint) and hint is not Rate


def _overridable(type_: type) -> Iterable[tuple[str, tuple[tuple[str, ...], Any]]]:
    for name, hint in hints(type_).items():
        inner = bare(hint)
        if name == "project" or get_origin(inner) is tuple:
            continue
        if _is_section(inner):
            for key, sub in hints(inner).items():
                yield f"{PREFIX}{name}_{key}".upper(), ((name, key), bare(sub))
        else:
            yield f"{PREFIX}{name}".upper(), ((name,), inner)


def _named_variables(table: Mapping[str, Any]) -> Iterable[str]:
    """Variables a project names itself, such as an alert's secret_env."""
    for entry in table.get("alerts", ()):
        if isinstance(entry, dict):
            yield str(entry.get("secret_env"))
    journal, retrain = table.get("journal"), table.get("retrain")
    if isinstance(journal, dict):
        yield str(journal.get("hash_key_env"))
    if isinstance(retrain, dict):
        yield from (str(name) for name in retrain.get("env", ()))


def _from_text(hint: Any, text: str) -> Any:
    if get_origin(hint) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    kinds = [h for h in (get_args(hint) or (hint,)) if h is not type(None)]
    for kind in kinds:
        try:
            if kind is bool:
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            if kind in (int, float):
                return kind(text)
        except (ValueError, KeyError):
            return text  # the reader says what is wrong with it
    return text


def _text(value: Any, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{wanted} and in quotes, not {shown(value)}")
    return value


_KINDS: dict[Any, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def nearest(name: Any, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    close = difflib.get_close_matches(str(name), allowed, n=1)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; allowed: {', '.join(sorted(allowed))}" if len(allowed) <= 20 else ""


def shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def doc(hint: Any) -> str:
    return str(get_args(hint)[1]) if get_origin(hint) is Annotated else "a section"
