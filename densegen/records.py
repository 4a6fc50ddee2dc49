"""Records from files that a person or a program gave: YAML, JSON and NumPy archives, read with bounds, and the first
problem of one in a line.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args

from densegen.errors import ConfigurationError, FormatError, did_you_mean, in_short
from densegen.files import file_size, read_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic import BaseModel, ValidationError

Kind = TypeVar("Kind", bound="BaseModel")

__all__ = [
    "MAX_YAML_BYTES",
    "as_yaml",
    "first_problem",
    "parse_yaml",
    "read_archive",
    "read_json",
    "read_validated",
    "read_yaml",
    "refuse_switch",
]

MAX_YAML_BYTES = 2 << 20
MAX_YAML_VALUES = 100_000
"""densegen's own index has 13,000 in 120 kB."""

MAX_JSON_BYTES = 256 << 20
"""The manifest of a dataset of 100,000 shards has 40 MB."""

MAX_ARCHIVE_BYTES = 128 << 20


def read_archive(
    path: Path, names: Iterable[str], what: str, *, optional: Iterable[str] = (), largest: int | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The arrays ``names`` of a NumPy archive (``.npz``), and the ``optional`` ones that it has; nothing is unpickled.

    Raises :class:`FormatError`, which names ``what`` it should be, if it is damaged, lacks one, or unpacks to more
    than ``largest`` bytes, by default ``MAX_ARCHIVE_BYTES``.
    """
    import zipfile

    import numpy as np

    try:
        file_size(path)
        with zipfile.ZipFile(path) as packed:
            members, most = packed.infolist(), MAX_ARCHIVE_BYTES if largest is None else largest
            # Other methods unpack by whole blocks, whatever size a member says it has.
            if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
                raise FormatError(f"{path.name} is packed in another way than NumPy packs: save it with np.savez")
            if (size := sum(member.file_size for member in members)) > most:
                raise FormatError(f"{path.name} unpacks to {size >> 20} MiB, at most {most >> 20} are read")
        with np.load(path, allow_pickle=False) as archive:
            there = [name for name in optional if name in archive]
            arrays = {name: np.asarray(archive[name]) for name in (*names, *there)}
        for name, array in arrays.items():
            # NumPy keeps text as numbers, and a number that is no character ends Python's own text functions.
            if array.dtype.kind == "U" and (_code_points(array) >= 0x110000).any():
                raise FormatError(f"{path.name} is not a readable {what}: {name} holds what is no character")
        return arrays
    except FormatError:
        raise
    except KeyError as error:
        raise FormatError(f"{path.name} is not a {what}: {error.args[0]}") from error
    # A damaged archive surfaces as almost anything: zlib, tokenizer, value and system errors.
    except Exception as error:
        raise FormatError(f"{path.name} is not a readable {what}: {in_short(error)}") from error


def _code_points(texts: npt.NDArray[np.str_]) -> npt.NDArray[np.uint32]:
    import numpy as np

    return np.frombuffer(texts.astype(texts.dtype.newbyteorder("=")).tobytes(), np.uint32)


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file of plain values; ``what`` says in errors what it should have been.

    Raises :class:`ConfigurationError` if it does not exist, :class:`FormatError` if it is no YAML.
    """
    return parse_yaml(read_bytes(path, what, MAX_YAML_BYTES), path.name)


def parse_yaml(text: bytes | str, name: str) -> Any:
    """The plain values in YAML text; ``name`` stands in the :class:`FormatError` if it is none.

    Numbers are those of YAML 1.2: ``1:30`` is text, ``1e3`` a number; switches those of YAML 1.1: ``yes`` is true.
    Aliases are refused: a few bytes of them can stand for gigabytes.
    """
    import yaml

    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    # Each value begins with one of these; values of a few bytes take seconds and hundreds of megabytes by the million.
    if sum(map(data.count, (b",", b"[", b"{", b"\n", b"- ", b": ", b"? "))) > MAX_YAML_VALUES:
        raise FormatError(f"{name} holds too many values: at most {MAX_YAML_VALUES:,} are read")
    try:
        if b"*" in data and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=_loader())):
            raise FormatError(f"{name} holds an alias (*): write its value out")
        loader = _loader()(data)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except FormatError:
        raise
    # Beside its own errors, the loader raises whatever a nonsensical !!bool or !!timestamp makes it raise.
    except Exception as error:
        raise FormatError(f"{name} is not readable YAML: {in_short(error, 200)}") from error


_YAML_INT = re.compile(r"^[-+]?(?:[0-9]{1,30}|0x[0-9a-fA-F]{1,24})$")
_YAML_FLOAT = re.compile(
    r"^[-+]?(?:[0-9]{1,60}\.[0-9]{0,60}|\.[0-9]{1,60}|[0-9]{1,60}(?=[eE]))(?:[eE][-+]?[0-9]{1,5})?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


@cache
def _loader() -> Any:
    """The safe loader, in C if PyYAML was built with it (ten times as fast), with numbers of bounded length, and keys
    that stand once."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    int_tag, float_tag = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"

    class Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag not in (int_tag, float_tag)]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }

        def construct_number(self, node: Any) -> int | float:
            word = str(self.construct_scalar(node))
            if _YAML_INT.match(word):
                return int(word, 16 if "x" in word else 10)
            if _YAML_FLOAT.match(word):
                return float(word.lower().replace(".inf", "inf").replace(".nan", "nan"))
            raise ValueError(f"{word[:40]!r} is no number")

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = Counter((key.value, key.tag) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            for (word, _), times in keys.most_common(1):
                if times > 1:
                    raise ValueError(f"{word[:40]!r} stands twice in what begins in line {node.start_mark.line + 1}")
            return super().construct_mapping(node, deep)

    for tag, pattern in ((int_tag, _YAML_INT), (float_tag, _YAML_FLOAT)):
        Loader.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
        Loader.add_constructor(tag, Loader.construct_number)
    return Loader


def read_validated(kind: type[Kind], path: Path, what: str) -> Kind:
    """A YAML file as a pydantic model; raises :class:`FormatError` with the first thing that is wrong in it."""
    from pydantic import ValidationError

    contents = read_yaml(path, what)
    try:
        _refuse_another_format(contents, kind, path, what)
        return kind.model_validate(contents)
    except ValidationError as error:
        raise FormatError(f"{path.name}: {first_problem(error, kind)}") from error


def _refuse_another_format(contents: Any, kind: type[BaseModel], path: Path, what: str) -> None:
    """Say it if the file is one of another kind: arguments are easily swapped."""
    expected = kind.model_fields["format"].default if "format" in kind.model_fields else None
    found = contents.get("format") if isinstance(contents, dict) else None
    if isinstance(expected, str) and isinstance(found, str) and found.startswith("densegen ") and found != expected:
        name = found.removeprefix("densegen ")
        raise FormatError(f"{path.name} is no {what}, but densegen's format '{name}': are two arguments swapped?")


def first_problem(error: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """The first thing that is wrong, on one line, with its place: ``landmarks.3.uv: Field required``.

    kind : what was validated, if an unknown name shall bring the known one that it resembles
    """
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    message = _PLAIN.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], float) and math.isnan(first["input"]):
        message = "nan is not a number"
    elif first["type"] in _PLAIN and first["input"] is None:
        message += ", and there is nothing"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        message = f"there is no such field{_resembling(first['loc'], kind)}"
    elif first["type"] == "literal_error" and isinstance(first["input"], str):
        message += did_you_mean(first["input"], _choices(first["loc"], kind))
    return f"{place}: {message}" if place else message


_PLAIN = {
    "dict_type": "expected names and their values",
    "list_type": "expected a list",
    "model_type": "expected names and their values",
    "tuple_type": "expected a list",
}
"""What pydantic says in Python's words."""


_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


def as_yaml(text: str, *, ascii_only: bool = False) -> str:
    """JSON text that YAML can read, too: it may hold characters that YAML may not, and ``json.dumps`` escapes those
    beyond 16 bits as two halves, which YAML refuses.

    text : JSON with every character as it is, but control characters
    ascii_only : escape all characters beyond ASCII; what JSON cannot escape in one piece is YAML alone then
    """

    def escaped(found: re.Match[str]) -> str:
        number = ord(found[0])
        return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"

    return (_NOT_ASCII if ascii_only else _NOT_IN_YAML).sub(escaped, text)


def refuse_switch(kind: type[BaseModel], name: str, value: Any) -> Any:
    """The value of a field, for pydantic, which takes true for 1: raises ``ValueError`` if it is true or false, or
    holds that, and the field is no switch.
    """
    wanted = kind.model_fields[name].annotation
    inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    of_its_own = isinstance(wanted, type) and hasattr(wanted, "model_fields")
    if wanted is not bool and not of_its_own and any(isinstance(one, bool) for one in (value, *inside)):
        raise ValueError("this is no switch; yes, no, on, off, true and false are words of switches")
    return value


def _choices(place: tuple[int | str, ...], kind: Any) -> list[str]:
    """The words that a field of fixed words may hold."""
    for part in place[:-1]:
        kind = getattr(getattr(kind, "model_fields", {}).get(part), "annotation", None)
    field = getattr(kind, "model_fields", {}).get(place[-1]) if place else None
    words = get_args(field.annotation) if field is not None else ()
    return [word for word in words if isinstance(word, str)]


def _resembling(place: tuple[int | str, ...], kind: Any) -> str:
    for part in place[:-1]:
        field = getattr(kind, "model_fields", {}).get(part)
        kind = None if field is None else field.annotation
    fields = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
    before = "".join(f"{part}." for part in place[:-1])
    return did_you_mean(f"{before}{place[-1]}", [before + name for name in fields])


def read_json(path: Path) -> Any | None:
    """The contents of a JSON file; None if it does not exist or is damaged.

    Raises :class:`FormatError` if it is no file or larger than ``MAX_JSON_BYTES``, ``OSError`` if it cannot be read.
    """
    try:
        return json.loads(read_bytes(path, "JSON file", MAX_JSON_BYTES))
    except (ConfigurationError, ValueError, RecursionError):
        return None
