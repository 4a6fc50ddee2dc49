"""The reference, written from the code when the site is made: commands, settings, files, the Python API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

__all__ = ["as_fields", "write_pages"]

ENTRY = re.compile(r"^([a-z_][A-Za-z0-9_, ]*) : (.*)$")
NO_DEFAULT = ""


def write_pages(folder: Path) -> None:
    """Write every page of the reference; pages that did not change keep their time, so that Sphinx skips them."""
    folder.mkdir(exist_ok=True)
    for name, text in {
        "commands.md": commands_page(),
        "settings.md": settings_page(),
        "files.md": files_page(),
        "python.md": python_page(),
    }.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def commands_page() -> str:
    """Every command with its help, arguments and options."""
    import densegen.cli
    import densetrain.cli

    lines = [
        "# Commands",
        "",
        "What `--help` of each command says. Bad input ends with one line on standard error and exit 1, wrong usage",
        "with exit 2, Ctrl-C with exit 130. Results go to standard output, notes and progress to standard error.",
        "",
    ]
    for main in (densegen.cli.main, densetrain.cli.main):
        for words, command in _commands(main, str(main.name)):
            lines += _command(words, command)
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, before: str) -> Iterator[tuple[str, click.Command]]:
    for name in sorted(group.commands):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def _command(words: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=words, max_content_width=100)
    usage = " ".join(command.collect_usage_pieces(context))
    paragraphs = (command.help or "").split("\n\n")
    lines = [f"## `{words}`", "", f"```text\n{words} {usage}\n```", ""]
    for paragraph in paragraphs:
        text = paragraph.strip("\n")
        if text.lstrip().startswith("\b"):
            body = "\n".join(line.strip() for line in text.replace("\b", "").strip("\n").splitlines())
            lines += [f"```text\n{body}\n```", ""]
        else:
            lines += [_escape(" ".join(text.split())), ""]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if options:
        lines += ["| option | default | |", "|---|---|---|"]
        lines += [_option(option, context) for option in options]
    return [*lines, ""]


def _option(option: click.Option, context: click.Context) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    kind = "" if option.is_flag else option.make_metavar(context)
    text = " ".join((option.help or "").split())
    # Some defaults are words in the help: `[default: all cores]`.
    found = re.search(r"\s*\[default: ([^\]]*)\]", text)
    default = found[1] if found else NO_DEFAULT
    if found:
        text = text.replace(found[0], "")
    elif option.required:
        default = "*required*"
    elif isinstance(option.show_default, str):
        default = option.show_default
    elif option.is_flag and option.secondary_opts and isinstance(option.default, bool):
        default = f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    elif isinstance(option.default, str | int | float | Path) and not option.is_flag:
        default = f"`{option.default}`"
    return f"| `{_cell(names + (f' {kind}' if kind else ''))}` | {_cell(default)} | {_cell(_escape(text))} |"


def settings_page() -> str:
    """Every setting of a training."""
    from densetrain.config import READY_SETTINGS, FitSettings, read_settings

    ready = {name: read_settings(name).model_dump(mode="json") for name in READY_SETTINGS}
    schema = FitSettings.model_json_schema()
    lines = [
        "# Settings",
        "",
        "Of `densetrain fit`: a YAML file with these groups, `--set group.name=value`, or the ready ones by name.",
        "`densetrain settings paper > mine.yaml` prints all of them, `densetrain schema settings` their JSON",
        "Schema, for an editor.",
        "",
    ]
    for group, about in schema["properties"].items():
        if "$ref" not in about:
            lines += [f"## `{group}`", "", f"{_plain(about.get('description', ''))} Default: `{about['default']}`.", ""]
            continue
        section = schema["$defs"][about["$ref"].split("/")[-1]]
        lines += [f"## `{group}`", "", _plain(section.get("description", "")), ""]
        lines += [f"| setting | default | {' | '.join(f'`{name}`' for name in ready)} | meaning |", "|---" * 6 + "|"]
        for name, field in section["properties"].items():
            default = field.get("default")
            values = [ready[one][group][name] for one in ready]
            cells = [f"`{json.dumps(value)}`" if value != default else "" for value in values]
            meaning = f"{_plain(field.get('description', ''))} {_range(field)}".strip()
            lines.append(f"| `{name}` | `{json.dumps(default)}` | {' | '.join(cells)} | {_cell(meaning)} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def _range(field: dict[str, Any]) -> str:
    """The values that a field takes, in words."""
    kinds = field.get("anyOf", [field])
    words = []
    for kind in kinds:
        if "enum" in kind:
            words.append(" or ".join(f"`{value}`" for value in kind["enum"]))
        bounds = [
            f"{sign} {kind[key]:g}"
            for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
            if key in kind
        ]
        if bounds:
            words.append(", ".join(bounds))
    return f"({'; '.join(words)})" if words else ""


def files_page() -> str:
    """The fields of every file that a person or a program reads."""
    from densegen.index.candidates import Candidates
    from densegen.index.corrections import Corrections
    from densegen.index.vertex_index import VertexIndex
    from densegen.sources.manifest import Manifest
    from densetrain.prediction.results import FrameRecord, ImageRecord

    files: list[tuple[str, str, Any]] = [
        ("Manifest", "YAML; `densegen schema manifest`. More: [Manifests](../manifests.md).", Manifest),
        ("Vertex index", "YAML; `densegen schema index`. More: [The vertex index](../vertex_index.md).", VertexIndex),
        ("Corrections of an index", "YAML; `densegen schema corrections`.", Corrections),
        ("Candidates of an index", "YAML; `densegen schema candidates`.", Candidates),
        ("Prediction of an image", "JSON, of `densetrain predict`; `densetrain schema prediction`.", ImageRecord),
        ("Prediction of a video", "JSON Lines, one a frame; `densetrain schema frame`.", FrameRecord),
    ]
    lines = [
        "# Files",
        "",
        "Shards have [a page of their own](../shards.md). Unknown fields are refused everywhere.",
        "",
    ]
    for title, about, kind in files:
        schema = kind.model_json_schema()
        lines += [f"## {title}", "", about, ""]
        for name, part in [("", schema), *schema.get("$defs", {}).items()]:
            if "properties" not in part:
                continue
            text, meanings = _entries(part.get("description", ""))
            if name:
                lines += [f"### {title}: `{name}`", "", _plain(text), ""]
            lines += ["| field | type | required | |", "|---|---|---|---|"]
            for field, content in part["properties"].items():
                needed = "yes" if field in part.get("required", []) else ""
                said = content.get("description") or meanings.get(field, "")
                meaning = f"{_plain(said)} {_range(content)}".strip()
                lines.append(f"| `{field}` | {_cell(_type(content))} | {needed} | {_cell(meaning)} |")
            lines.append("")
    return "\n".join(lines) + "\n"


def _type(content: dict[str, Any]) -> str:
    if "$ref" in content:
        return f"`{content['$ref'].split('/')[-1]}`"
    if "anyOf" in content:
        return " or ".join(_type(one) for one in content["anyOf"])
    if content.get("type") == "array":
        inner = content.get("items") or {}
        return f"list of {_type(inner)}" if isinstance(inner, dict) and inner else "list"
    if "const" in content:
        return f"`{content['const']}`"
    return str(content.get("type", "any"))


def python_page() -> str:
    """The public names of both packages, with their docstrings."""
    import densegen
    import densetrain

    lines = ["# Python API", "", "How it is used: [From Python](../python.md).", ""]
    for package in (densegen, densetrain):
        lines += [f"## `{package.__name__}`", ""]
        for name in package.__all__:
            if name == "__version__":
                continue
            kind = "autoclass" if isinstance(getattr(package, name), type) else "autofunction"
            members = "\n   :members:" if kind == "autoclass" else ""
            lines += [f"```{{eval-rst}}\n.. {kind}:: {package.__name__}.{name}{members}\n```", ""]
    return "\n".join(lines) + "\n"


def as_fields(lines: list[str]) -> None:
    """Turn the docstrings' lines ``name : meaning`` into fields that Sphinx lays out; changes ``lines``."""
    made: list[str] = []
    inside = False
    for line in lines:
        if found := ENTRY.match(line):
            if not inside and made and made[-1].strip():
                made.append("")
            field = "returns" if found[1] == "returns" else f"param {found[1]}"
            made.append(f":{field}: {found[2]}")
            inside = True
        else:
            inside = inside and line.startswith(" ")
            made.append(line)
    lines[:] = made


def _entries(text: str) -> tuple[str, dict[str, str]]:
    """A class's docstring without the lines ``name : meaning``, and what these say of each field."""
    kept: list[str] = []
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        if found := ENTRY.match(line):
            names = found[1].split(", ")
            meanings |= dict.fromkeys(names, found[2])
        elif names and line.startswith(" "):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
        else:
            names = []
            kept.append(line)
    return "\n".join(kept).strip(), meanings


def _plain(text: str) -> str:
    """A docstring's text as Markdown."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{found[1].split('.')[-1]}`", text)
    return " ".join(text.replace("``", "`").split())


def _escape(text: str) -> str:
    return re.sub(r"([*<>\[\]])", r"\\\1", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
