"""The documentation: links lead to files, commands and options exist, and the commands of a promotion work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspaces import Place

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every call of ayeaye in the page's shell blocks."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0] and not words[0].startswith("-"):
                words = words[1:]  # a variable before the command
            if words and words[0] == "ayeaye":
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_and_has_these_options(page: Path) -> None:
    from typer.main import get_command

    from ayeaye.cli import program

    for words in commands(page):
        command = get_command(program.app)
        rest = list(words)
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        options = {name: each for each in command.params for name in each.opts}
        given = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
        assert set(given) <= set(options), f"{page.name}: ayeaye {' '.join(words)}"
        settings = [word for word in rest if re.fullmatch(r"[a-z_]+\.[A-Za-z_.]+=.*", word)]
        if words[0] in ("set", "init"):
            check_parameters(settings)


def check_parameters(settings: list[str]) -> None:
    from ayeaye.core.params import Params

    for setting in settings:
        section, key = setting.partition("=")[0].split(".")[:2]
        field = Params.model_fields[section].annotation
        assert field is not None and key in field.model_fields, setting


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    generated = {ROOT / "docs" / "reference" / f"{name}.md" for name in ("parameters", "commands", "http")}
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path = (page.parent / target).resolve()
            assert path.exists() or path in generated, f"{page.name}: {target}"


@pytest.mark.slow
def test_compare_promote_and_roll_back_as_documented(copied: Place) -> None:
    lines = list(commands(ROOT / "docs" / "how-to" / "compare-and-promote.md"))[:5]
    champions = []
    for words in lines:
        done = copied(*words)
        assert done.code == 0, f"{words}: {done.err}"
        champions.append(copied.status["champion"]["version"])
    assert champions == [1, 1, 1, 2, 1]
    entries = copied("log", "--json").json
    assert [(each["action"], each["to"]) for each in reversed(entries)] == [
        ("promote", 1), ("pending", 2), ("promote", 2), ("rollback", 1),
    ]  # fmt: skip
    assert entries[0]["why"] == ["complaints about royal gala"]


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert len(pages) > 30
    for page in pages:
        assert not re.search(r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//", page)
        assert not re.search(
            r"<link[^>]+rel=\"(?:stylesheet|preconnect|icon)\"[^>]+href=\"(?:https?:)?//", page
        )
