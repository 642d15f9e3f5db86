"""A real browser, and services that it can be pointed at."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from playwright.sync_api import Browser, sync_playwright
from workspaces import wait_for

from ayeaye.core.processes import free_port
from ayeaye.service import app as http
from ayeaye.service.inference import Inference
from ayeaye.service.security import SecurityHeaders
from ayeaye.service.served import Served

# It is to ask for nothing by itself; as root it has no sandbox.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless, with a fresh profile; what needs it is skipped where it is not installed."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: apt-get install --no-install-recommends chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def listening(served: Served) -> Iterator[str]:
    """The URL of a service in this process, on a port."""
    inference = Inference(served)
    port = free_port()
    app = SecurityHeaders(http.create(lambda: inference))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), 30, "the service does not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        inference.close()
