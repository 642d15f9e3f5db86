"""The wheel by itself: built, installed where the checkout cannot be imported, and put to work."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ("params.yaml", "dvc.yaml", "bentofile.yaml", "prefect.yaml")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh venv in which the wheel is installed, and of ayeaye nothing else."""
    folder = tmp_path_factory.mktemp("packaging")
    # The source distribution, and from that the wheel.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("ayeaye_zsl-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True, timeout=300)
    # What a .pth names is searched, but .pth files in it, such as an editable install's, are not read.
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def run(programs: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AYEAYE"))
    }
    environment["PATH"] = os.pathsep.join([str(programs), "/usr/local/bin", "/usr/bin", "/bin"])
    program, *arguments = command
    return subprocess.run(
        [programs / program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )


def features(path: Path) -> Path:
    """An .npz whose features follow from the attributes of their class: eight seen, four unseen classes."""
    rng = np.random.default_rng(0)
    classes, each = 12, 10
    attributes = rng.normal(size=(classes, 6))
    labels = np.repeat(np.arange(classes), each)
    clean = attributes @ rng.normal(size=(6, 24))
    np.savez(
        path,
        features=(clean[labels] + 0.3 * rng.normal(size=(len(labels), 24))).astype(np.float16),
        labels=labels,
        class_names=np.array([f"kind {number}" for number in range(classes)]),
        role=np.array(["seen"] * 8 + ["unseen"] * 4),
        attributes=attributes.astype(np.float32),
    )
    return path


@pytest.mark.slow
def test_the_wheel_brings_the_package_the_flows_and_the_templates(programs: Path, tmp_path: Path) -> None:
    where = "import ayeaye, ayeaye.flows; print(ayeaye.__file__); print(ayeaye.flows.__file__)"
    found = run(programs, "python", "-c", where, cwd=tmp_path).stdout.split()
    assert [Path(each).is_relative_to(programs.parent) for each in found] == [True, True]

    assert run(programs, "ayeaye", "init", "workspace", cwd=tmp_path).returncode == 0
    for name in TEMPLATES:
        assert (tmp_path / "workspace" / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.slow
def test_a_workspace_of_the_installed_wheel_prepares_its_pictures(programs: Path, tmp_path: Path) -> None:
    small = ["--set", "prepare.species=32", "--set", "prepare.pictures=4"]
    assert run(programs, "ayeaye", "init", "small", *small, cwd=tmp_path).returncode == 0
    prepared = run(programs, "ayeaye", "prepare", "--workspace", "small", "--json", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    assert json.loads(prepared.stdout)["pictures"] == 32 * 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_workspace_of_the_installed_wheel_comes_to_a_champion(programs: Path, tmp_path: Path) -> None:
    settings = ["prepare.source=features", f"prepare.path={features(tmp_path / 'features.npz')}"]
    settings += ["classes.source=attributes", "evaluate.bootstrap=100", "train.folds=2"]
    settings += ["release.minimum={}", "release.maximum={}"]
    sets = [part for setting in settings for part in ("--set", setting)]
    assert run(programs, "ayeaye", "init", "rows", *sets, cwd=tmp_path).returncode == 0
    retrained = run(programs, "ayeaye", "retrain", "--workspace", "rows", "--json", cwd=tmp_path)
    assert retrained.returncode == 0, retrained.stderr
    assert json.loads(retrained.stdout)["outcome"] == "promoted"


def test_the_constraints_pin_every_requirement_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *chain(*extras), *project["build-system"]["requires"]]
    for requirement in map(Requirement, wanted):
        if requirement.name == project["project"]["name"]:  # an extra that takes in another
            continue
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_every_module_has_its_floor_in_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    package = ROOT / "src" / "ayeaye"
    modules = {path.stem for path in package.glob("[a-z]*.py")}
    modules |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert {f"ayeaye.{name}" for name in modules} == set(contracts[0]["layers"])


def test_the_constraints_hold_for_every_machine() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"\+|@|^-e", text, re.MULTILINE), "local versions, paths or addresses"
