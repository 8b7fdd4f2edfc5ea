"""Writes the generated parts of the docs: help texts into commands.md, the reference of recipe keys into recipes.md,
those of sweeps into sweeps.md.

    python docs/refresh.py            write them
    python docs/refresh.py --check    exit with 1 if they are not what they would be

The same on every machine and terminal: Click's plain help at a fixed width, and what the recipe models say of
themselves.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from handreid.cli.commands import app
from handreid.recipe import Recipe, builtin_names, load_recipe
from handreid.recipe.load_sweep import builtin_sweeps, load_sweep
from handreid.recipe.sweep import Sweep

DOCS = Path(__file__).parent
WIDTH = 100
BEGIN, END = "<!-- generated: {} -->", "<!-- end of generated -->"
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "file", object: "anything"}
BOUNDS = {"ge": "at least {}", "gt": "over {}", "le": "at most {}", "lt": "under {}"}


def main(arguments: list[str]) -> None:
    stale = [path for path, text in refreshed().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in arguments:
        names = ", ".join(f"docs/{path.name}" for path in stale)
        sys.exit(f"{names}: not as the code has it; run `make docs`" if stale else 0)
    for path in stale:
        path.write_text(refreshed()[path], "utf-8")


def refreshed() -> dict[Path, str]:
    """Files with generated parts, as they should be."""
    recipes = {"built-in recipes": builtin_recipes(), "keys": keys_of(Recipe, "the recipe")}
    sweeps = {"built-in sweeps": builtin_sweep_table(), "keys": keys_of(Sweep, "the sweep")}
    pages = {DOCS / "recipes.md": recipes, DOCS / "sweeps.md": sweeps}
    return {DOCS / "commands.md": commands(), **{path: _filled(path, parts) for path, parts in pages.items()}}


def _filled(path: Path, parts: Mapping[str, str]) -> str:
    text = path.read_text("utf-8")
    for name, content in parts.items():
        text = _between(path, text, BEGIN.format(name), END, content)
    return text


def commands() -> str:
    """Help of every command, the commands of a group after the group."""
    lines = [
        "# Commands",
        "",
        "What `--help` says, written by `make docs`. [All of handreid](handreid.md) has examples.",
        "",
    ]
    for path, help_text in help_texts():
        lines += [f"## {path}", "", "```text", help_text, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def help_texts() -> Iterator[tuple[str, str]]:
    yield from _help(typer.main.get_command(app), "handreid", None)


def _help(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
    )
    children = getattr(command, "commands", {})
    for child in children.values():
        child.short_help = (child.help or "").split("\n\n")[0]  # whole, not cut at the width
    command.rich_markup_mode = None  # Click's plain text, without boxes
    yield context.command_path, command.get_help(context).replace("**", "")
    for child in children.values():
        yield from _help(child, child.name, context)


def builtin_recipes() -> str:
    lines = ["| recipe | about |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {load_recipe(name).about} |" for name in builtin_names())])


def builtin_sweep_table() -> str:
    found = {name: load_sweep(name).sweep for name in builtin_sweeps()}
    rows = [
        f"| `{name}` | `{one.recipe}` | {one.settings} by {one.search} | {one.about} |" for name, one in found.items()
    ]
    return "\n".join(["| sweep | recipe | settings | about |", "|---|---|---|---|", *rows])


def keys_of(root: type[BaseModel], whole: str) -> str:
    """A section per model, in the order in which a reader of the file meets them."""
    sections = []
    for where, model in _models("", root, set()):
        lines = [f"### {where or whole}", "", _words(model.__doc__), ""]
        fields = {name: field for name, field in model.model_fields.items() if name != "kind" or len(_kinds(field)) > 1}
        rows = [
            f"| `{field.alias or name}` | {_type(field)} | {_default(field)} | {_words(field.description)} |"
            for name, field in fields.items()
        ]
        table = ["| key | value | default | meaning |", "|---|---|---|---|", *rows]
        sections.append("\n".join([*lines, *(table if rows else ["No other keys."])]).rstrip())
    return "\n\n".join(sections)


def _models(path: str, model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[tuple[str, type[BaseModel]]]:
    if model in seen:
        return
    seen.add(model)
    yield _heading(path, model), model
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            yield from _models(f"{path}.{name}".lstrip("."), inner, seen)


def _heading(path: str, model: type[BaseModel]) -> str:
    kinds = _kinds(model.model_fields["kind"]) if "kind" in model.model_fields else ()
    return f"{path}, kind: {kinds[0]}" if len(kinds) == 1 else path


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else (None, None)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _type(field: FieldInfo) -> str:
    bounds = [
        word.format(f"{getattr(one, key):g}")
        for one in field.metadata
        for key, word in BOUNDS.items()
        if hasattr(one, key)
    ]
    return ", ".join([_named(field.annotation), *bounds])


def _named(annotation: Any) -> str:
    """A type in words; models are told by the sections that follow."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is Annotated:
        return _named(parts[0])
    if origin is list or (origin is tuple and parts[-1] is Ellipsis):
        return f"list of {_named(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_named, parts))}]"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "keys"
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys("null" if part is type(None) else _named(part) for part in parts))
    return NAMES[annotation]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "needed"
    if isinstance(field.default, BaseModel) and field.annotation is type(field.default):
        return "as below"
    value = _plain(field.default)
    if isinstance(value, list) and value and all(isinstance(one, str) and " " in one for one in value):
        return "<br>".join(f"`{one}`" for one in value)
    return f"`{_yaml(value)}`"


def _plain(value: Any) -> Any:
    """A default as a recipe would hold it; of models the kind, and what differs from their own defaults."""
    if isinstance(value, BaseModel):
        return {k: _plain(v) for k, v in value if k == "kind" or k in value.model_fields_set}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.4g}")
    return value


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").strip()


def _words(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _between(path: Path, text: str, begin: str, end: str, content: str) -> str:
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"docs/{path.name} has no part between {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text, count=1)


if __name__ == "__main__":
    main(sys.argv[1:])
