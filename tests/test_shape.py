"""The figures of bench/shape.py on a program of three files."""

from pathlib import Path

import shape

ONE = '''"""A module."""

import uvicorn.config
from typing import Any

from ayeaye import two

Row = dict[str, Any]


def rows() -> list[Row]:
    """A docstring
    of two lines."""
    # a comment
    return [{"text": """of
    two lines"""}]


def _named() -> tuple[Row, str]:
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "x"
    return {}, ""  # fmt: skip
'''
TWO = "def late():\n    from ayeaye import one\n    return one\n"


def measured(folder: Path) -> dict[str, int]:
    package = folder / "src" / "ayeaye"
    package.mkdir(parents=True)
    (package / "one.py").write_text(ONE)
    (package / "two.py").write_text(TWO)
    (package / "flows").symlink_to("../../flows")
    (folder / "flows").mkdir()
    (folder / "flows" / "__init__.py").write_text("x = 1\n")
    return shape.figures(shape.read(folder))


def test_blank_lines_comments_and_docstrings_are_no_code_and_a_linked_folder_counts_once(
    tmp_path: Path,
) -> None:
    found = measured(tmp_path)
    assert found["code lines"] == 10 + 3 + 1
    assert found["fmt: skip"] == 1
    assert found["top-level functions and classes"] == 3
    assert found["of these public"] == 2
    assert found["lines of the longest function"] == 6


def test_untyped_results_cycles_and_patches_are_found(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found["functions that return dict[str, Any]"] == 1
    assert found["import cycles"] == 1
    assert found["patches of BentoML or uvicorn"] == 1
    assert found["imports of _internal"] == 0
