"""What earlier commits of a workspace hold: datasets, outputs, parameters, and a clone at one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ayeaye.core.errors import WorkspaceError
from ayeaye.core.workspace import Workspace
from ayeaye.versioning import dvc, git


def clone(workspace: Workspace, commit: str, folder: Path) -> Workspace:
    """A workspace of its own in an empty folder, as `commit` has it, with the remote that `workspace` has now.

    Its cache is empty. The history has to hold the commit (`git.has_commit`).
    """
    made = Workspace(folder.resolve())
    # Not by links into the other's history: one may be deleted without the other.
    git.run(
        workspace, "clone", "--quiet", "--no-checkout", "--no-hardlinks", str(workspace.root), str(folder)
    )
    git.run(made, "checkout", "--quiet", "--detach", commit)
    sections: dict[str, dict[str, str]] = {}
    for name in ("config", "config.local"):
        for section, values in dvc.read_config(workspace.root / ".dvc" / name).dict().items():
            if section.startswith("remote "):
                sections[section] = {**sections.get(section, {}), **values}
    for values in sections.values():
        if "://" not in values.get("url", "://"):  # relative to the file that it stands in
            values["url"] = str((workspace.root / ".dvc" / values["url"]).resolve())
    with dvc.opened(workspace) as repo:
        sections[f'remote "{dvc.ORIGINAL}"'] = {"url": repo.cache.local_cache_dir}
    # One of its own, wherever the other's is: what lies there would not be made anew.
    dvc.configure(made, {**sections, "cache": {"dir": "cache", "local": ""}}, "config.local")
    (made.root / ".dvc" / "config.local").chmod(0o600)  # there may be credentials in it
    return made


def datasets(workspace: Workspace) -> dict[str, list[str]]:
    """Every dataset that was ever tracked, by its digest, with the commits that brought it, the newest first."""
    found: dict[str, list[str]] = {}
    for commit, content in _versions_of(workspace, dvc.DATASET):
        for out in content.get("outs", []):
            found.setdefault(out["md5"], []).extend(filter(None, [commit]))
    return found


def outputs(workspace: Workspace) -> dict[str, set[str]]:
    """By path of every output of a stage the digests that it ever had."""
    found: dict[str, set[str]] = {}
    for _, content in _versions_of(workspace, "dvc.lock"):
        for stage in (content.get("stages") or {}).values():
            for out in stage.get("outs", []):
                found.setdefault(out["path"], set()).add(out["md5"])
    return found


def recorded_params(workspace: Workspace, commit: str, name: str) -> dict[str, str]:
    """What dvc.lock of a commit holds of a file of parameters, such as `.ayeaye/code.yaml`."""
    found: dict[str, str] = {}
    for stage in (_parsed(git.run(workspace, "show", f"{commit}:./dvc.lock")).get("stages") or {}).values():
        found |= stage.get("params", {}).get(name, {})
    return found


def _versions_of(workspace: Workspace, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A YAML file as it lies there, under no commit, and of every branch's and experiment's commits that changed it.

    The newest first.
    """
    if (workspace.root / path).is_file():
        yield "", _parsed((workspace.root / path).read_text(encoding="utf-8"))
    for commit in git.run(workspace, "log", "--all", "--format=%H", "--", path).split():
        with suppress(WorkspaceError):  # removed there
            yield commit, _parsed(git.run(workspace, "show", f"{commit}:./{path}"))


def _parsed(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text) or {}
