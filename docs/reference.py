"""Write the reference pages from the code, when MkDocs builds the site: parameters, commands, routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs' hook: add the generated pages to those of the folder."""
    for name, write in {"parameters": parameters, "commands": commands, "http": routes}.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(write()) + "\n"))
    return files


def parameters() -> Iterator[str]:
    """Every parameter with its type, default and the comment of params.yaml."""
    from ayeaye.core.params import Params

    yield "# Parameters\n"
    yield "`params.yaml` has one section per step. `ayeaye set SECTION.KEY=VALUE` checks a value and writes it."
    yield "An empty value means none.\n"
    comments = dict(_comments((ROOT / "params.yaml").read_text(encoding="utf-8")))
    for section, field in Params.model_fields.items():
        yield f"## {section}\n"
        yield "| parameter | default | type | meaning |\n|---|---|---|---|"
        for name, each in field.annotation.model_fields.items():
            default = each.get_default(call_default_factory=True)
            kind = (
                str(each.annotation).replace("typing.", "")
                if not isinstance(each.annotation, type)
                else each.annotation.__name__
            )
            meaning = comments.get(f"{section}.{name}", "")
            yield f"| `{name}` | {_value(default)} | {_cell(_plain(kind.replace('typing.', '')))} | {_cell(meaning)} |"
        yield ""


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """`section.key` and the comment beside it, with the lines that continue it."""
    section = key = ""
    said: list[str] = []
    for line in [*text.splitlines(), "end:"]:
        if found := re.match(r"(\s*)([a-z_A-Z0-9]+):([^#]*)(?:#\s*(.*))?$", line):
            if len(found[1]) <= 2:
                if key and said:
                    yield f"{section}.{key}", " ".join(said)
                said = []
            if not found[1]:
                section, key = found[2], ""
            elif len(found[1]) == 2:
                key = found[2]
            if found[4]:
                said.append(f"{found[2]}: {found[4]};" if len(found[1]) > 2 else found[4])
        elif key and (more := re.match(r"\s+#\s*(.*)$", line)):
            said.append(more[1])


def _plain(kind: str) -> str:
    kind = kind.replace("typing.", "")
    kind = re.sub(r"Annotated\[([^,\]]+)[^\]]*\]", r"\1", kind)
    kind = re.sub(r"pydantic\.types\.SecretStr", "str", kind)
    if found := re.match(r"Literal\[(.*)\]$", kind):
        return " \\| ".join(each.strip().strip("'") for each in found[1].split(","))
    return kind.replace("NoneType", "None")


def _value(default: Any) -> str:
    if default is None or default == {}:
        return "–"
    return f"`{json.dumps(default, ensure_ascii=False)}`" if not isinstance(default, str) else f"`{default}`"


def commands() -> Iterator[str]:
    """Every command with its help, arguments and options."""
    import typer

    from ayeaye.cli import program

    yield "# Commands\n"
    yield "Run `ayeaye COMMAND --help` for the same text. Commands with `--json` print one JSON document.\n"
    yield "| exit status | |\n|---|---|"
    yield "| 0 | done |\n| 1 | an error, told in a line or two |\n| 2 | a wrong option or argument |"
    yield "| 3 | the gate refused (`retrain`, `demo`), the result differs (`reproduce`), or drift (`watch`) |"
    yield "| 130 | interrupted; the same command goes on |\n"
    group = typer.main.get_command(program.app)
    for name, command in sorted(_leaves(group)):
        yield f"## ayeaye {name}\n"
        yield f"{_unindented(command.help or '')}\n"
        rows = [row for each in command.params if (row := _option(each))]
        if rows:
            yield "| | |\n|---|---|"
            yield from rows
            yield ""


def _leaves(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{above}{name} ")
        elif not command.hidden:
            yield f"{above}{name}", command


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    elif parameter.name == "help":
        return ""
    return f"| {names} | {_cell(getattr(parameter, 'help', None) or '')} |"


def _unindented(text: str) -> str:
    return re.sub(r"\n[ \t]+", "\n", text.strip())


def routes() -> Iterator[str]:
    """Every route of the service, from its OpenAPI description."""
    from ayeaye.service import app

    described = app.create(lambda: None).openapi()
    yield "# HTTP API\n"
    yield 'The service describes itself at `/docs.json` (OpenAPI). An error is `{"error": …}` and says what to do.\n'
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"## {method.upper()} {path}\n"
            yield f"{operation.get('description') or operation.get('summary', '')}\n"
            if fields := operation.get("parameters"):
                yield "| parameter | in | meaning |\n|---|---|---|"
                for each in fields:
                    yield f"| `{each['name']}` | {each['in']} | {_cell(each.get('description', ''))} |"
                yield ""
            yield "| status | |\n|---|---|"
            for status, answer in operation["responses"].items():
                yield f"| {status} | {_cell(answer.get('description', ''))} |"
            yield ""


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", "\\|", " ".join(text.split()))
