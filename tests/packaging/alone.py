"""Imports an exported Bento into an empty store, serves it there and prints what it answers.

    python alone.py BENTO STORE PICTURE

Run in a network namespace of its own (`unshare --net`) there is no network but the loopback that it brings up, and
every port is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx

SET_FLAGS, UP = 0x8914, 0x1
PORT, SECONDS = 3917, 120


def main(bento: str, store: str, picture: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback, contextlib.suppress(PermissionError):
        fcntl.ioctl(loopback, SET_FLAGS, struct.pack("16sh22x", b"lo", UP))
    environment = {**os.environ, "BENTOML_HOME": store, "BENTOML_DO_NOT_TRACK": "True"}
    bentoml = [sys.executable, "-m", "bentoml"]
    subprocess.run([*bentoml, "import", bento], env=environment, check=True, stdout=sys.stderr)
    (tag,) = [
        f"{path.parent.name}:{path.name}" for path in (Path(store) / "bentos").glob("*/*") if path.is_dir()
    ]
    serve = [*bentoml, "serve", tag, "--host", "127.0.0.1", "--port", str(PORT)]
    server = subprocess.Popen(serve, env=environment, cwd=store, stdout=sys.stderr, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30, trust_env=False) as client:
            until = time.monotonic() + SECONDS
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if client.get("/readyz").status_code == 200:
                        break
                if server.poll() is not None or time.monotonic() > until:
                    sys.exit("the service does not start")
                time.sleep(0.2)
            answer = client.post("/classify", files={"image": ("p", Path(picture).read_bytes())})
            print(answer.raise_for_status().text)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
