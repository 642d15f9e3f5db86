"""The registry, on real SQLite and a real server."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ayeaye.core.errors import RegistryError, ReleaseError
from ayeaye.core.files import digest_folder
from ayeaye.core.paths import sqlite_uri
from ayeaye.core.processes import free_port
from ayeaye.release import artifacts
from ayeaye.release.registry import CHAMPION, PREVIOUS, Registry, Training, flat, shown


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database has its tables: making them takes seconds."""
    home = tmp_path_factory.mktemp("home")
    Registry(None, "warm", home).versions()
    return home / "mlflow.db"


@pytest.fixture
def registry(database: Path, tmp_path: Path) -> Registry:
    home = tmp_path / "home" / artifacts.HOME
    home.mkdir(parents=True)
    (home / "mlflow.db").write_bytes(database.read_bytes())
    return Registry(None, "ayeaye", home)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return make_training(tmp_path, "a")


def make_training(tmp_path: Path, letter: str, **changes: Any) -> Training:
    folder = tmp_path / f"bundle-{letter}"
    (folder / "class_space").mkdir(parents=True)
    (folder / "bundle.json").write_text(f'{{"letter": "{letter}"}}')
    (folder / "class_space" / "space.json").write_text("{}")
    report = tmp_path / "index.html"
    report.write_text("<p>fine</p>")
    training = Training(
        bundle_folder=folder,
        bundle_digest=letter * 64,
        evaluation_digest="e1",
        params={"train.mapper": "ridge", "long": "x" * 9000},
        metrics={"H": 0.4, "hubness": {"excess": -1.5}, "note": "text", "bad": float("nan")},
        dataset={"name": "bestiary", "digest": "d" * 64, "source": ".ayeaye/remote", "pictures": 12},
        pictures=[report],
        tags={"data_digest": "d" * 64, "git_commit": "c" * 40},
    )
    return replace(training, **changes)


def test_a_training_becomes_a_run_and_a_version(registry: Registry, training: Training) -> None:
    version = registry.record(training)
    assert version.number == 1
    assert version.tags["bundle_digest"] == "a" * 64
    assert version.tags["data_digest"] == "d" * 64
    assert registry.metrics(version) == {"H": 0.4, "hubness.excess": -1.5}
    bundle = registry.bundle(version)
    assert (bundle / "bundle.json").read_text() == '{"letter": "a"}'
    assert (bundle / "class_space" / "space.json").is_file()


def test_any_name_of_a_folder_will_do(
    database: Path, training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home = tmp_path / "here", tmp_path / "we?ird #1 100% %41 ~x é [a]"
    here.mkdir()
    monkeypatch.chdir(here)
    before = set(tmp_path.iterdir())
    registry = Registry(None, "ayeaye", home)
    version = registry.record(training)
    assert (home / "mlflow.db").is_file() and (registry.bundle(version) / "bundle.json").is_file()
    assert registry.bundle(version).is_relative_to(home)
    assert Registry(None, "ayeaye", home).versions() == [version]
    assert set(tmp_path.iterdir()) - before == {home} and not list(here.iterdir())
    assert shown(registry.uri) == f"sqlite:///{home / 'mlflow.db'}"


def test_the_run_carries_dataset_and_report(registry: Registry, training: Training) -> None:
    version = registry.record(training)
    client = registry._open()
    run = client.get_run(version.run_id)
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "bestiary"
    assert "d" * 64 in dataset.dataset.source
    assert run.info.status == "FINISHED"
    assert run.data.params["train.mapper"] == "ridge"
    assert "index.html" in registry.artifacts(version)


def test_what_was_recorded_can_be_read(registry: Registry, training: Training, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "curve.png").write_bytes(b"drawn")
    version = registry.record(replace(training, pictures=[plots]))
    assert registry.params(version)["train.mapper"] == "ridge"
    assert registry.dataset(version) == {"name": "bestiary", "digest": "d" * 64, "pictures": 12}
    path = registry.artifact(version, "plots/curve.png")
    assert path is not None and path.read_bytes() == b"drawn"
    assert registry.artifact(version, "plots/other.png") is None


def test_a_version_is_described_once_and_anew_when_there_is_more_to_say(
    registry: Registry, training: Training
) -> None:
    registry.record(training)
    registry.describe(1, "# What it is", {"card.html": b"first"})
    path = registry.artifact(1, "card.html")
    assert path is not None and path.read_bytes() == b"first"
    path.write_bytes(b"untouched")
    registry.describe(1, "# What it is", {"card.html": b"first"})
    assert path.read_bytes() == b"untouched"
    registry.describe(1, "# What it is now", {"card.html": b"second"})
    assert path.read_bytes() == b"second"
    assert registry._open().get_model_version("ayeaye", "1").description == "# What it is now"


def test_a_known_bundle_keeps_its_version(registry: Registry, training: Training) -> None:
    first = registry.record(training)
    assert registry.record(training) == first
    assert len(registry.versions()) == 1


def test_a_new_evaluation_of_a_known_bundle_brings_its_figures_not_a_version(
    registry: Registry, training: Training
) -> None:
    registry.record(training)
    again = registry.record(replace(training, evaluation_digest="e2", metrics={"H": 0.3}))
    assert again.number == 1
    assert again.tags["evaluation_digest"] == "e2"
    assert registry.metrics(1)["H"] == 0.3


def test_a_new_evaluation_of_a_known_bundle_leaves_nothing_of_the_one_before(
    registry: Registry, training: Training
) -> None:
    """As when photographs of an unseen class arrive: nothing is trained anew, but all is measured anew."""
    registry.record(replace(training, tags={**training.tags, "estimated_on": "class folds"}))
    again = registry.record(
        replace(
            training,
            evaluation_digest="e2",
            metrics={"H": 0.3},
            dataset={**training.dataset, "digest": "f" * 64},
            tags={"data_digest": "f" * 64, "git_commit": "b" * 40, "estimated_on": "unseen classes"},
        )
    )
    assert registry.metrics(1) == {"H": 0.3}
    assert (again.tags["data_digest"], again.tags["git_commit"]) == ("f" * 64, "b" * 40)
    assert again.tags["estimated_on"] == "unseen classes"
    inputs = registry._open().get_run(again.run_id).inputs.dataset_inputs
    assert any("f" * 64 in each.dataset.source for each in inputs)


def test_the_model_of_another_workspace_is_not_touched(registry: Registry, training: Training) -> None:
    registry = Registry(registry.uri, "ayeaye", registry.home, "mine")
    registry.record(training)
    other = Registry(registry.uri, "ayeaye", registry.home, "other")
    for act in (lambda: other.record(training), other.versions, lambda: other.set_alias(CHAMPION, 1)):
        with pytest.raises(ReleaseError, match=r"another workspace: set release\.model"):
            act()
    assert Registry(registry.uri, "ayeaye", registry.home, "mine").record(training).number == 1
    assert Registry(registry.uri, "another", registry.home, "other").record(training).number == 1


def test_the_database_in_a_workspace_is_its_own_whoever_it_was_before(
    registry: Registry, training: Training
) -> None:
    registry.owner = "mine"
    registry.record(training)
    assert Registry(None, "ayeaye", registry.home, "a copy of mine").record(training).number == 1


def test_versions_come_newest_first_with_their_aliases(registry: Registry, tmp_path: Path) -> None:
    assert registry.versions() == []
    for letter in "ab":
        registry.record(make_training(tmp_path, letter))
    registry.set_alias(CHAMPION, 2)
    registry.set_alias(PREVIOUS, 1)
    assert [(each.number, each.aliases) for each in registry.versions()] == [
        (2, ("champion",)),
        (1, ("previous",)),
    ]


def test_an_alias_moves_and_goes(registry: Registry, tmp_path: Path) -> None:
    assert registry.alias(CHAMPION) is None
    for letter in "ab":
        registry.record(make_training(tmp_path, letter))
    registry.set_alias(CHAMPION, 1)
    registry.set_alias(CHAMPION, registry.version(2))
    champion = registry.alias(CHAMPION)
    assert champion is not None and champion.number == 2
    registry.set_alias(CHAMPION, None)
    registry.set_alias(CHAMPION, None)
    assert registry.alias(CHAMPION) is None


def test_tags_are_set_and_removed(registry: Registry, training: Training) -> None:
    registry.record(training)
    registry.tag(1, refused="H: too low", bento="ayeaye:v1-x")
    assert registry.version(1).tags["refused"] == "H: too low"
    registry.untag(1, "refused", "never_set")
    assert "refused" not in registry.version(1).tags


def test_an_unknown_version_raises_meaningful_error(registry: Registry, training: Training) -> None:
    registry.record(training)
    with pytest.raises(RegistryError, match="ayeaye has no version 7; known, newest first: 1"):
        registry.version(7)
    with pytest.raises(RegistryError, match="no version 7"):
        registry.set_alias(CHAMPION, 7)


def test_a_bundle_that_is_gone_raises_meaningful_error(registry: Registry, training: Training) -> None:
    version = registry.record(training)
    shutil.rmtree(registry.bundle(version))
    with pytest.raises(RegistryError, match="the bundle of version 1 is gone"):
        registry.bundle(version)
    registry.record(training)
    assert (registry.bundle(version) / "bundle.json").read_text() == '{"letter": "a"}'


@pytest.mark.parametrize("step", ["create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated",
                                  "create_registered_model", "create_model_version"])  # fmt: skip
def test_killed_after_any_step_the_next_call_finishes_the_same_run(
    registry: Registry, training: Training, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    client = registry._open()
    of: Any = LocalArtifactRepository if step == "log_artifacts" else client
    real = getattr(of, step)

    def then_die(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(of, step, then_die)
        with pytest.raises(KeyboardInterrupt):
            registry.record(training)
    version = Registry(None, "ayeaye", registry.home).record(training)
    assert version.number == 1
    assert len(registry.versions()) == 1
    assert len(client.search_runs([registry._experiment])) == 1
    assert client.get_run(version.run_id).info.status == "FINISHED"
    assert (registry.bundle(version) / "bundle.json").is_file()


_RECORD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_registry import make_training
from ayeaye.release.registry import Registry
tmp = Path(sys.argv[2])
training = make_training(tmp / sys.argv[3], "a")
print(Registry(None, "ayeaye", tmp / "home").record(training).number)
"""


@pytest.mark.slow
def test_two_processes_that_make_the_database_and_record_the_same_bundle_agree(tmp_path: Path) -> None:
    for name in "12":
        (tmp_path / name).mkdir()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _RECORD, str(Path(__file__).parent), str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "12"
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == ["1", "1"]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9", "cannot be reached at http://127.0.0.1:9"),
        ("postgresql://ann:secret@127.0.0.1:9/mlflow", r"postgresql://ann:\*\*\*@127.0.0.1:9/mlflow"),
        ("ftp://example.org", "expected an http"),
    ],
)
def test_an_unreachable_server_raises_within_seconds(tmp_path: Path, uri: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(RegistryError, match=reason) as error:
        Registry(uri, "ayeaye", tmp_path).versions()
    assert time.monotonic() - started < 10
    assert "secret" not in str(error.value)


def test_a_damaged_database_raises_meaningful_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RegistryError, match=r"MLflow at sqlite:///.* could not list the versions"):
        Registry(None, "ayeaye", tmp_path).versions()


def test_nested_figures_are_flattened_and_what_is_no_number_left_out() -> None:
    metrics = {
        "a": {"b": 1, "c": None},
        "interval": [0.1, 0.2],
        "curve": list(range(50)),
        "ok": True,
        "p(1)": 2,
    }
    assert flat(metrics) == {"a.b": 1.0, "interval.0": 0.1, "interval.1": 0.2, "ok": 1.0, "p_1_": 2.0}


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://ann:secret@host/db") == "postgresql://ann:***@host/db"
    assert shown("sqlite:////home/x/mlflow.db") == "sqlite:////home/x/mlflow.db"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_a_server_keeps_runs_versions_and_bundles(server: str, tmp_path: Path, training: Training) -> None:
    registry = Registry(server, "ayeaye", tmp_path / "home")
    version = registry.record(training)
    assert registry.record(training) == version
    registry.set_alias(CHAMPION, version)
    elsewhere = Registry(server, "ayeaye", tmp_path / "other")
    champion = elsewhere.alias(CHAMPION)
    assert champion is not None and champion.number == 1
    bundle = elsewhere.bundle(champion)
    assert (bundle / "bundle.json").read_text() == '{"letter": "a"}'
    assert elsewhere.bundle(champion) == bundle
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]
    registry.describe(version, "# What it is", {"card.html": b"whole"})
    card = elsewhere.artifact(version, "card.html")
    assert card is not None and card.read_bytes() == b"whole"
    nested = elsewhere.artifact(version, "model/bundle/bundle.json")
    assert nested is not None and nested.read_text() == '{"letter": "a"}'
    assert elsewhere.artifact(version, "plots/none.png") is None


@pytest.mark.slow
def test_mlflow_itself_can_load_the_registered_model(
    registry: Registry, training: Training, bundle: Path
) -> None:
    import mlflow
    from small_bundle import picture

    version = registry.record(replace(training, bundle_folder=bundle))
    (registry.home / "p.png").write_bytes(picture("green", 99))
    mlflow.set_tracking_uri(registry.uri)
    model = mlflow.pyfunc.load_model(f"models:/ayeaye/{version.number}")
    (answer,) = model.predict([str(registry.home / "p.png")])
    assert answer["label"] == "green"


ODD = "a 100%41 place #1; why?"  # what ends, or is taken for an escape in, an address


@pytest.mark.parametrize("name", ["moved", ODD])
def test_a_registry_that_was_moved_finds_all_of_it_and_leaves_the_old_place_alone(
    registry: Registry, training: Training, tmp_path: Path, name: str
) -> None:
    report = training.pictures[0]
    registry.record(training)
    old = registry.home.parents[1]
    new = old.rename(tmp_path / name)
    moved = Registry(None, "ayeaye", new / artifacts.HOME)
    folder = moved.bundle(1)
    assert folder.is_relative_to(new) and (folder / "bundle.json").is_file()
    found = moved.artifact(1, report.name)
    assert found is not None and found.read_bytes() == report.read_bytes()
    moved.describe(1, "# What it is", {"card.html": b"whole"})
    moved.restore_bundle(moved.version(1), training.bundle_folder)
    assert moved.record(make_training(tmp_path, "b")).number == 2
    moved.strip(1)
    assert set(moved.artifacts(1)) == {"card.html"}
    assert digest_folder(moved.bundle(2)) == digest_folder(tmp_path / "bundle-b")
    assert not old.exists() and str(old) not in repr((new / artifacts.HOME / "mlflow.db").read_bytes())


def test_files_of_a_database_elsewhere_lie_in_the_workspace_and_move_with_it(
    registry: Registry, training: Training, tmp_path: Path
) -> None:
    uri = sqlite_uri(Path(shutil.copyfile(registry.home / "mlflow.db", tmp_path / "elsewhere.db")))
    version = Registry(uri, "ayeaye", registry.home, "mine").record(training)
    moved = registry.home.rename(tmp_path / "moved")
    found = Registry(uri, "ayeaye", moved, "mine")
    assert found.bundle(version) == moved / "artifacts" / version.run_id / "artifacts" / "model" / "bundle"
    assert (found.bundle(version) / "bundle.json").is_file()
    found.keep(version, {"card.html": b"whole"})
    assert not registry.home.exists()


def test_two_registries_of_the_same_runs_in_one_process_keep_their_files_apart(
    registry: Registry, training: Training, tmp_path: Path
) -> None:
    registry.record(training)
    root = registry.home.parents[1]
    copy = shutil.copytree(root, tmp_path / "copy")
    before = digest_folder(root / artifacts.HOME / "artifacts")
    other = Registry(None, "ayeaye", copy / artifacts.HOME)
    other.keep(1, {"card.html": b"of the copy"})
    other.strip(1)
    assert digest_folder(root / artifacts.HOME / "artifacts") == before
    assert set(other.artifacts(1)) == {"card.html"}


def test_a_registry_whose_files_lie_at_absolute_paths_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.versions()
    with closing(sqlite3.connect(registry.home / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", (tmp_path.as_uri(),))
    with pytest.raises(RegistryError, match=r"of ayeaye 0\.1, .*make a workspace anew"):
        Registry(None, "ayeaye", registry.home).versions()


@pytest.mark.parametrize(
    ("tracking", "variable", "home"),
    [
        ("sqlite:////srv/shop/.ayeaye/mlflow/mlflow.db", "/elsewhere", "/srv/shop/.ayeaye/mlflow"),
        ("sqlite:////srv/mlflow/mlflow.db", "/srv/a b", "/srv/a b/.ayeaye/mlflow"),
        ("http://127.0.0.1:5000", "/srv/a%20b", "/srv/a%20b/.ayeaye/mlflow"),
    ],
)
def test_mlflow_finds_files_by_the_database_and_else_by_the_environment(
    tracking: str, variable: str, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    monkeypatch.setenv("AYEAYE_WORKSPACE", variable)
    found = get_artifact_repository("ayeaye:/artifacts/r/artifacts/model", tracking)
    assert found.artifact_dir == f"{home}/artifacts/r/artifacts/model"


def test_an_address_of_no_workspace_raises_meaningful_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    monkeypatch.delenv("AYEAYE_WORKSPACE", raising=False)
    with pytest.raises(MlflowException, match="set AYEAYE_WORKSPACE"):
        artifacts.repository("ayeaye:/artifacts/r", "http://127.0.0.1:5000")
    with pytest.raises(ValueError, match="out of the workspace"):
        artifacts.resolve("ayeaye:/artifacts/%2e%2e/%2e%2e/%2e%2e", Path("/srv"))


@pytest.mark.slow
def test_a_process_killed_while_it_makes_the_database_leaves_none_behind(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ayeaye.release.registry import Registry;"
        "Registry(None, 'ayeaye', Path(sys.argv[1])).versions()"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    until = time.monotonic() + 60
    # Its tables are being made: there are some, but not all.
    while not any(path.stat().st_size > 200_000 for path in tmp_path.glob(".mlflow.db.*.part")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    assert Registry(None, "ayeaye", tmp_path).versions() == []
