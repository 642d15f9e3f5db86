"""Services of the tests: in this process behind a client, or real ones of BentoML on a port."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
from sqlalchemy import URL, Table, select
from workspaces import wait_for

from ayeaye.class_vectors import space
from ayeaye.classifier.model import Classifier
from ayeaye.core import params
from ayeaye.core.processes import free_port, start, stop
from ayeaye.data.table import ClassTable
from ayeaye.mappers import create
from ayeaye.service import app as http
from ayeaye.service.database import Database
from ayeaye.service.inference import Inference
from ayeaye.service.security import SecurityHeaders
from ayeaye.service.served import Served
from ayeaye.service.tables import PREDICTIONS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it wants another client; it works with this one
    from starlette.testclient import TestClient

LOCAL = ("127.0.0.1", 50000)
ANIMALS = {
    "okapi": "a striped animal of dark forests with a long tongue",
    "zebra": "a striped animal of open grass that runs in herds",
    "otter": "a brown animal of rivers that swims and eats fish",
    "heron": "a grey bird of rivers with long legs that eats fish",
    "eagle": "a brown bird of high mountains with broad wings",
    "fox": "a red animal of dark forests that hunts at night",
}
FEATURES = 12


@contextmanager
def within(
    served: Served, client: tuple[str, int] = LOCAL, raising: bool = True
) -> Iterator[tuple[TestClient, Inference]]:
    """A service in this process, asked through ASGI by a client with an address."""
    inference = Inference(served)
    app = SecurityHeaders(http.create(lambda: inference))
    try:
        with TestClient(
            app, base_url="http://127.0.0.1", client=client, raise_server_exceptions=raising
        ) as asking:
            yield asking, inference
    finally:
        inference.close()


def write_animals(folder: Path) -> str:
    """A bundle of features whose classes are described in words; returns its digest."""
    frame = pd.DataFrame(
        {
            "name": list(ANIMALS),
            "role": ["unseen" if name == "fox" else "seen" for name in ANIMALS],
            "description": list(ANIMALS.values()),
            "synonyms": [[] for _ in ANIMALS],
        }
    )
    table = ClassTable(frame, {})
    made = space.build(table, params.Classes(source="tfidf"), Path)
    y = np.repeat(np.arange(len(ANIMALS) - 1), 6)
    mapper = create("ridge").fit(np.stack([row(n) for n in range(len(y))]), y, made.vectors)
    return Classifier(made, table.seen, mapper, 0.1, 0.5).save(folder)


def row(number: int) -> np.ndarray:
    """(FEATURES,) of a picture that nobody took."""
    return np.random.default_rng(number).normal(size=FEATURES).astype(np.float32)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(width: int, height: int, pixels: bytes = b"", mode: int = 0) -> bytes:
    """A PNG that says it is so large, whatever pixels are in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels, 1))
        + chunk(b"IEND", b"")
    )


def logged(address: URL, table: Table = PREDICTIONS) -> list[dict[str, Any]]:
    """The rows of the log of answers, in their order."""
    database = Database(address)
    try:
        with database.reading() as connection:
            return [dict(row) for row in connection.execute(select(table).order_by(table.c.id)).mappings()]
    finally:
        database.close()


@dataclass(frozen=True)
class Server:
    """A running `bentoml serve`."""

    url: str
    process: Any
    log: Path
    workers: int = 1

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    @contextmanager
    def of_every_worker(self) -> Iterator[list[httpx.Client]]:
        """Clients whose connections are held open, of every worker at least one."""
        with ExitStack() as stack:
            clients: list[httpx.Client] = []
            while len(self.connected()) < self.workers:
                assert len(clients) < 500, "one worker takes every connection"
                clients.append(stack.enter_context(self.client()))
                clients[-1].get("/livez").raise_for_status()
            yield clients
            assert len(self.connected()) == self.workers

    def connected(self) -> set[int]:
        """The processes that hold connections of clients."""
        port = httpx.URL(self.url).port
        return {
            each.pid
            for each in psutil.Process(self.process.pid).children(recursive=True)
            for held in each.net_connections("tcp")
            if held.status == psutil.CONN_ESTABLISHED and held.laddr.port == port
        }

    def memory(self) -> int:
        """Bytes that its processes hold."""
        leader = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in [leader, *leader.children(recursive=True)])


@contextmanager
def serving(
    bundle: Path, state: Path, folder: Path, workers: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The service of a bundle as BentoML runs it, stopped by SIGTERM."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "AYEAYE_BUNDLE": str(bundle),
        "AYEAYE_STATE": str(state),
        "AYEAYE_WORKERS": str(workers),
        "BENTOML_HOME": str(folder / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        **(environment or {}),
    }
    command = [sys.executable, "-m", "bentoml", "serve", "ayeaye.service.service:Ayeaye"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = folder / "log"
    with log.open("ab") as output:
        process = start(command, env={**os.environ, **settings}, cwd=folder, log=output)
        server = Server(f"http://127.0.0.1:{port}", process, log, workers)
        try:
            with server.client() as client:
                wait_for(lambda: _ready(client, process), 120, "the service is not ready")
            yield server
        finally:
            stop(process)


def _ready(client: httpx.Client, process: Any) -> bool:
    assert process.poll() is None
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False
