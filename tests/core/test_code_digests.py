"""Digests of code: all that a stage runs is in its own, and nothing that it does not run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ayeaye.core import code_digests
from ayeaye.core.code_digests import PACKAGE, digest_code, sources
from ayeaye.core.workspace import STAGES, template

LOADED = """
import sys, importlib
importlib.import_module(sys.argv[1])
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("ayeaye.") and module.__file__))
"""


def names(stage: str) -> set[str]:
    return {path.relative_to(PACKAGE).as_posix() for path in sources(f"ayeaye.pipeline.{stage}")}


def test_each_stage_of_the_pipeline_lists_its_own_code() -> None:
    stages = YAML(typ="safe").load(template("dvc.yaml"))["stages"]
    listed = {
        name: [param[".ayeaye/code.yaml"] for param in stage["params"] if ".ayeaye/code.yaml" in param]
        for name, stage in stages.items()
    }
    assert listed == {stage: [[stage]] for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_python_loads_for_a_stage_is_in_its_digest(stage: str) -> None:
    module = f"ayeaye.pipeline.{stage}"
    done = subprocess.run([sys.executable, "-c", LOADED, module], capture_output=True, text=True, check=True)
    loaded = {Path(file).resolve() for file in done.stdout.split() if Path(file).stat().st_size}
    assert loaded - {PACKAGE / "version.py"} <= sources(module)  # a new version alone trains nothing anew


def test_imports_in_functions_count_and_neighbours_do_not() -> None:
    assert {"evaluation/metrics.py", "mappers/ridge.py", "backbones/backbones.py"} <= names("train")
    assert {"reporting/report.py", "reporting/templates/report.html.j2"} <= names("evaluate")
    assert {"class_vectors/quality.py", "mappers/ridge.py", "classifier/model.py"} <= names("evaluate")
    assert {"data/checks.py", "class_vectors/words.py"} <= names("classes")
    assert {"data/decode.py", "backbones/training.py"} <= names("embed")
    drawn = {"reporting/report.py", "reporting/plots.py", "reporting/templates/report.html.j2"}
    assert not drawn & names("train")
    assert not any(name.startswith(("mapping", "release", "data/sources")) for name in names("embed"))


def test_a_change_is_a_change_for_the_stages_that_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PACKAGE, tmp_path / "ayeaye")
    monkeypatch.setattr(code_digests, "PACKAGE", tmp_path / "ayeaye")

    def digests() -> dict[str, str]:
        return {stage: digest_code(f"ayeaye.pipeline.{stage}") for stage in STAGES}

    before = digests()
    with (tmp_path / "ayeaye" / "evaluation" / "metrics.py").open("a") as file:
        file.write("# changed\n")
    after = digests()
    assert {stage for stage in STAGES if before[stage] != after[stage]} == {"train", "evaluate"}
