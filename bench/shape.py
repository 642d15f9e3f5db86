"""The shape of the code, in figures: how much there is to read, how it is cut, and what it leans on.

python bench/shape.py [--json] [--check]

Reads `src` and `flows` with `ast` and `tokenize` alone; nothing is imported. `--check` exits with 1 where a figure
is past its limit.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx

ROOT = Path(__file__).parents[1]
LIMITS = {
    "code lines": 17_000,
    "fmt: skip": 18,
    "top-level functions and classes": 1_000,
    "of these public": 550,
    "functions that return dict[str, Any]": 30,
    "lines of the longest module": 450,
    "lines of the longest function": 50,
    "import cycles": 0,
    "imports of _internal": 0,
    "patches of BentoML or uvicorn": 0,
}
UNTYPED = r"(?:dict|Mapping)\[str, Any\]"
PATCHED = ("bentoml", "uvicorn")
Function = ast.FunctionDef | ast.AsyncFunctionDef
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, where it lies, its text and its syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @property
    def code_lines(self) -> int:
        """Lines with code on them: neither blank, nor a comment, nor a docstring."""
        tokens = (token for token in self.tokens if token.type not in LAYOUT)
        lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
        return len(lines - set(self._docstring_lines()))

    def _docstring_lines(self) -> Iterator[int]:
        for node in self.nodes:
            if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node) is not None:
                text = node.body[0]
                yield from range(text.lineno, (text.end_lineno or text.lineno) + 1)

    @property
    def skips(self) -> int:
        return sum(token.type == tokenize.COMMENT and "fmt: skip" in token.string for token in self.tokens)

    @property
    def top_level(self) -> list[str]:
        return [node.name for node in self.tree.body if isinstance(node, ast.ClassDef | Function)]

    @cached_property
    def functions(self) -> list[Function]:
        return [node for node in self.nodes if isinstance(node, Function)]

    def aliases(self) -> Iterator[str]:
        """Names of untyped dictionaries, such as `Row = dict[str, Any]`."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and re.fullmatch(UNTYPED, ast.unparse(node.value)):
                yield ast.unparse(node.targets[0])

    def imports(self) -> Iterator[tuple[str, str | None]]:
        """(module, name imported from it or None), those for type checkers alone left out."""
        checked = [node for node in self.nodes if isinstance(node, ast.If) and _for_checkers(node)]
        skipped = {id(each) for node in checked for each in ast.walk(node)}
        for node in self.nodes:
            if id(node) in skipped:
                continue
            if isinstance(node, ast.Import):
                yield from ((alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((node.module, alias.name) for alias in node.names)

    def patches(self) -> Iterator[str]:
        """Assignments into the modules of PATCHED."""
        strangers = set()
        for node in self.nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None)
                for alias in node.names:
                    if (module or alias.name).partition(".")[0] in PATCHED:
                        strangers.add(alias.asname or alias.name.partition(".")[0])
        for node in self.nodes:
            for target in _assigned(node):
                if isinstance(target, ast.Attribute | ast.Subscript) and _root(target) in strangers:
                    yield f"{self.name}:{target.lineno} {ast.unparse(target)}"


def _for_checkers(node: ast.If) -> bool:
    return "TYPE_CHECKING" in ast.unparse(node.test)


def _assigned(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
        return [ast.copy_location(ast.Attribute(node.args[0], "?"), node)]
    return [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def read(root: Path = ROOT) -> list[Module]:
    """Every module of the program; a folder that is linked into another is read once."""
    paths = {path.resolve() for folder in ("src", "flows") for path in (root / folder).rglob("*.py")}
    return [_module(path, root) for path in sorted(paths)]


def _module(path: Path, root: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    inside = path.relative_to(root.resolve())
    parts = inside.parts[1:] if inside.parts[0] == "src" else ("ayeaye", *inside.parts)
    name = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
    return Module(name, path, text, ast.parse(text))


def cycles(modules: Iterable[Module]) -> list[list[str]]:
    """Groups of modules that import one another, wherever in a file the imports stand."""
    named = {module.name: module for module in modules}
    graph = networkx.DiGraph()
    for module in named.values():
        for source, name in module.imports():
            for target in (f"{source}.{name}", source):
                if target in named:
                    graph.add_edge(module.name, target)
                    break
    return [sorted(group) for group in networkx.strongly_connected_components(graph) if len(group) > 1]


def figures(modules: list[Module]) -> dict[str, int]:
    """What is held against LIMITS, and all lines beside."""
    top = [name for module in modules for name in module.top_level]
    functions = [function for module in modules for function in module.functions]
    untyped = "|".join([UNTYPED, *(re.escape(alias) for module in modules for alias in module.aliases())])
    untyped = rf"(?:\w+\[(?:\w+, )?)?(?:{untyped})\]?(?: \| None)?"  # alone, or each of a list or a mapping
    returned = (ast.unparse(function.returns) for function in functions if function.returns)
    return {
        "lines": sum(len(module.text.splitlines()) for module in modules),
        "code lines": sum(module.code_lines for module in modules),
        "fmt: skip": sum(module.skips for module in modules),
        "top-level functions and classes": len(top),
        "of these public": sum(not name.startswith("_") for name in top),
        "functions that return dict[str, Any]": sum(bool(re.fullmatch(untyped, each)) for each in returned),
        "lines of the longest module": max(len(module.text.splitlines()) for module in modules),
        "lines of the longest function": max((f.end_lineno or f.lineno) - f.lineno + 1 for f in functions),
        "import cycles": len(cycles(modules)),
        "imports of _internal": sum(
            "_internal" in f"{source}.{name}" for module in modules for source, name in module.imports()
        ),
        "patches of BentoML or uvicorn": sum(len(list(module.patches())) for module in modules),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    found = figures(read())
    past = [name for name, limit in LIMITS.items() if found[name] > limit]
    if chosen.json:
        print(json.dumps({"figures": found, "limits": LIMITS, "past": past}, indent=1))
    else:
        for name, value in found.items():
            limit = f"at most {LIMITS[name]:,}" if name in LIMITS else ""
            print(f"{value:>7,}  {name:<38} {limit:<16} {'PAST' if name in past else ''}".rstrip())
    if chosen.check and past:
        sys.exit(1)


if __name__ == "__main__":
    main()
