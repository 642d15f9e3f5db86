"""A retrain with everything on PostgreSQL and S3, as documented in docs/how-to/share-a-registry.md."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import databases
import httpx
import psycopg
import pytest
import workspaces
from moto.server import ThreadedMotoServer
from sqlalchemy import URL
from workspaces import Place, wait_for

from ayeaye.core.processes import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def empty(postgres: databases.Server) -> dict[str, URL]:
    return {name: postgres.create(name) for name in ("prefect", "mlflow")}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """An S3 of the tests' own with a bucket, and the environment in which clients find it."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        bucket = boto3.resource("s3").Bucket("shop")
        bucket.create()
        yield bucket
    server.stop()


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("prefect", "worker", "mlflow", "service")}


@pytest.fixture(scope="module")
def environment_of_stores(empty: dict[str, URL], bucket: Any) -> Mapping[str, str]:
    """What a person exports before `ayeaye up`: no password is in an address."""

    def address(name: str, driver: str) -> str:
        url = empty[name]
        return f"postgresql+{driver}://{url.username}@{url.host}:{url.port}/{url.database}"

    variables = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return {
        **variables,
        "PGPASSWORD": databases.PASSWORD,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": address("prefect", "asyncpg"),
        "MLFLOW_BACKEND_STORE_URI": address("mlflow", "psycopg"),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://shop/models",
    }


@pytest.fixture(scope="module")
def place(
    environment_of_stores: Mapping[str, str],
    ports: dict[str, int],
    small: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("stores")
    tracking = f"release.tracking=http://127.0.0.1:{ports['mlflow']}"
    source = workspaces.write_paints(folder / "paints")
    settings = (*small, tracking, "prepare.remote=s3://shop/data")
    place = workspaces.make(folder / "workspace", source, environment_of_stores, *settings)
    given = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    try:
        _run(place, "up", *given)
        yield place
    finally:
        _run(place, "down")


def test_a_retraining_with_everything_on_postgresql_and_s3(
    place: Place, empty: dict[str, URL], bucket: Any, ports: dict[str, int]
) -> None:
    _run(place, "retrain")

    assert (
        _one(empty["prefect"], "SELECT state_type::text FROM flow_run WHERE NOT auto_scheduled")
        == "COMPLETED"
    )
    version = _one(empty["mlflow"], "SELECT source FROM model_versions")
    assert version.startswith("mlflow-artifacts:")
    alias = _one(empty["mlflow"], "SELECT version FROM registered_model_aliases WHERE alias = 'champion'")
    assert int(alias) == 1
    names = {each.key for each in bucket.objects.all()}
    assert any(name.startswith("models/") and name.endswith("model/bundle/bundle.json") for name in names)
    assert any(name.startswith("data/files/md5/") for name in names)
    assert not (place.root / ".ayeaye" / "mlflow" / "mlflow.db").exists()
    assert not (place.root / ".ayeaye" / "prefect" / "prefect.db").exists()


def test_the_champion_is_served_from_there(place: Place, ports: dict[str, int]) -> None:
    picture = sorted((place.source / "images" / "paint 012").iterdir())[0]

    def answered() -> Any:
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{ports['service']}/classify",
                files={"image": picture.read_bytes()},
                timeout=30,
            )
        except httpx.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    wait_for(answered, 120, "the service does not answer")
    assert answered()["model"]["version"] == 1


def test_no_password_is_written_down(place: Place) -> None:
    state = place.root / ".ayeaye"
    for path in [*(state / "platform").iterdir(), *(state / "logs").iterdir()]:
        if path.is_file():
            assert databases.PASSWORD.encode() not in path.read_bytes()


def test_the_data_come_back_from_s3(
    place: Place, environment_of_stores: Mapping[str, str], tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", place.root, clone], check=True)
    subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "--quiet", "data/dataset.dvc"],
        cwd=clone,
        env=environment_of_stores,
        check=True,
    )
    manifest = Path("data/dataset/manifest.parquet")
    assert (clone / manifest).read_bytes() == (place.root / manifest).read_bytes()


def _run(place: Place, command: str, *arguments: str) -> None:
    """In a process of its own: Prefect reads its settings once."""
    done = subprocess.run(
        [workspaces.PROGRAM, command, "--workspace", str(place.root), *arguments],
        env=place.environment,
        capture_output=True,
        text=True,
    )
    logs = sorted((place.root / ".ayeaye" / "logs").glob("*.log"))
    said = "".join(f"\n== {path.name}\n{path.read_text()[-1500:]}" for path in logs)
    assert done.returncode == 0, done.stderr + said


def _one(url: URL, query: str) -> Any:
    with psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
    ) as connection:
        (row,) = connection.execute(query).fetchall()
        return row[0]
