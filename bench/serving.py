"""Requests a second, latencies, CPU, cold start and memory of the packed Bento; prints a table and writes JSON.

python bench/serving.py [--data DIR] [--pictures 3240] [--seconds 10] [--runs 3] [--out build/bench-serving.json]

DIR of --data holds grocery/ and weights/mobilenet_v2_1001.pth; without it the weights are random and the pictures
drawn. Served are, each by one worker: a plain service as BentoML's documentation writes one (Pillow, torch in
fp32, its own adaptive batching), and our Bento with torch, with the fastest exact engine, and with the one that
`auto` takes. All are started once; then the same load, from a process of its own, goes to one after the other, in
--runs rounds, so that whatever else the machine does meets all alike. Ratios are medians over the rounds.

A bare loop over the same pictures, from their bytes to answers, with the same engine and no server, says what
decoding and the network cost: what the server spends beyond is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from embedding import dataset_of
from threadpoolctl import threadpool_limits

from ayeaye.backbones import backbones, engines
from ayeaye.backbones.backbones import Backbone
from ayeaye.class_vectors import space
from ayeaye.classifier.model import Classifier
from ayeaye.core import params
from ayeaye.core.errors import PictureError
from ayeaye.core.processes import free_port, start, stop
from ayeaye.core.workspace import Workspace, template
from ayeaye.data.table import Dataset
from ayeaye.mappers import create
from ayeaye.packaging.bento import PROGRAM, BentoStore, Recipe
from ayeaye.pipeline.engine import with_engine
from ayeaye.pipeline.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
BATCH, SENT, EACH = 32, 64, 4  # pictures of the bare loop's batch, that are sent, and of each class to fit on
CONNECTIONS, MOST = (1, 8), 32
SHARES = (0.5, 0.8)
PATIENCE = 120.0  # seconds
LATENCIES = ("p50 ms", "p95 ms", "p99 ms")
FIGURES = ("requests a second", "p50 ms", "server's CPU ms a request", "client's CPU ms a request")
SUMMARY = (
    "times the plain service",
    "engine",
    "bare loop, pictures a second",
    "share of the bare loop",
    "bare loop, CPU ms a picture",
    "server's CPU beyond, ms a request",
    "cold start s",
    "worker MB",
)
PLAIN = "plain BentoML"
PLAIN_SERVICE = """
from typing import Any

import bentoml
import torch
from PIL.Image import Image

from ayeaye.backbones.vision import torchvision

torchvision()  # mends a torchvision that was built for another torch
from torchvision.models import mobilenet_v2
from torchvision.transforms._presets import ImageClassification


@bentoml.service(traffic={"timeout": 60})
class Plain:
    def __init__(self) -> None:
        state = torch.load("weights.pth", weights_only=True)
        self.model = mobilenet_v2(num_classes=len(state["classifier.1.bias"]))
        self.model.load_state_dict(state)
        self.model.float().eval()
        self.transform = ImageClassification(crop_size=224, resize_size=RESIZE, mean=[0.5] * 3, std=[0.5] * 3)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def classify(self, image: list[Image]) -> list[dict[str, Any]]:
        inputs = torch.stack([self.transform(each.convert("RGB")) for each in image])
        with torch.inference_mode():
            confidences, labels = self.model(inputs).softmax(dim=1).max(dim=1)
        return [
            {"label": label, "confidence": confidence}
            for label, confidence in zip(labels.tolist(), confidences.tolist())
        ]
"""


@dataclass
class Running:
    """A service on a port, and what its loads came to, by what the load was."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    cold_start: float
    loads: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """Of all its processes."""
        return sum(sum(each.cpu_times()[:2]) for each in self._processes())

    def worker_bytes(self) -> int:
        """Resident, of the largest of its processes."""
        return max(int(each.memory_info().rss) for each in self._processes())

    def _processes(self) -> list[psutil.Process]:
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]

    def load(self, what: str, pictures: Path, options: Sequence[object], seconds: float) -> dict[str, Any]:
        """Put it under a load in a process of its own; what that reports, and the server's CPU."""
        program = [sys.executable, str(Path(__file__).with_name("load.py")), f"{self.url}/classify"]
        command = [*program, *map(str, sorted(pictures.iterdir())), *map(str, options)]
        before = self.cpu_seconds()
        done = subprocess.run(
            [*command, "--seconds", str(seconds)], check=True, capture_output=True, text=True
        )
        seen: dict[str, Any] = json.loads(done.stdout)
        spent = self.cpu_seconds() - before
        seen["server's CPU ms a request"] = round(1000 * spent / max(1, seen["answered"]), 2)
        if seen["answered"] != seen["requests"]:
            print(f"{self.name}, {what}: {seen}", file=sys.stderr)
        self.loads.setdefault(what, []).append(seen)
        return seen


# What is served


def classifier_of(dataset: Dataset, backbone: Backbone) -> Classifier:
    """A classifier of the dataset's classes by their descriptions, fitted on a few pictures of each seen one."""
    classes = dataset.classes
    made = space.build(classes, params.Classes(source="tfidf"), Path)
    rows = dataset.manifest[dataset.manifest["label"].isin(classes.frame["name"][classes.seen])]
    rows = rows.sort_values("id").groupby("label").head(EACH)
    plain = Classifier(made, classes.seen, create("ridge"), 0.0, 1.0, backbone)
    read = plain.read([dataset.picture(id) for id in rows["id"]])
    index = classes.index()
    pairs = [
        (x, index[label])
        for x, label in zip(read, rows["label"], strict=True)
        if not isinstance(x, PictureError)
    ]
    X, y = np.stack([x for x, _ in pairs]), np.array([label for _, label in pairs])
    mapper = create("ridge").fit(X, y, made.vectors)
    return Classifier(made, classes.seen, mapper, 0.05, 0.1, backbone)


def packed(name: str, version: int, classifier: Classifier, folder: Path) -> str:
    """The tag of a Bento of the classifier, in the store `folder`/bentos."""
    bundle = folder / name
    digest = classifier.save(bundle)
    recipe = Recipe(name, version, bundle, digest, template("bentofile.yaml"))
    return BentoStore(folder / "bentos").build(recipe)


@contextmanager
def serving(name: str, served: Path, folder: Path) -> Iterator[Running]:
    """`bentoml serve` of a folder, until it is ready and as long as it is used."""
    folder.mkdir(parents=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        str(served),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AYEAYE_")},
        "BENTOML_HOME": str(folder / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "AYEAYE_STATE": str(folder / "state"),
    }
    hidden = [] if name == PLAIN else [PROGRAM]
    with (folder / "log").open("wb") as log:
        before = time.perf_counter()
        process = start(command, env=environment, cwd=folder, log=log, hidden=hidden)
        try:
            _wait(url, process, folder / "log")
            yield Running(name, url, process, time.perf_counter() - before)
        finally:
            stop(process)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    with httpx.Client(base_url=url, trust_env=False, timeout=5) as client:
        while time.monotonic() < until and process.poll() is None:
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
    raise SystemExit(f"the service does not start:\n{log.read_text()[-2000:]}")


# Measuring


def bare(classifier: Classifier, contents: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Answers a second and CPU of the plain loop over the pictures, with BLAS as in the service."""
    turns = cycle(contents)
    with threadpool_limits(1, user_api="blas"):
        classifier.classify(list(islice(turns, BATCH)))
        before, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < before + seconds:
            classifier.classify(list(islice(turns, BATCH)))
            count += BATCH
        spent, cpu = time.perf_counter() - before, time.process_time() - cpu
    return {"pictures a second": round(count / spent, 1), "CPU ms a picture": round(1000 * cpu / count, 2)}


def measure(data: Path, pictures: int, seconds: float, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place, ExitStack() as running:
        folder = Path(place)
        (folder / "workspace").mkdir()
        workspace, weights = dataset_of(data, pictures, folder / "workspace")
        dataset = Dataset.load(workspace.dataset)
        sent = _sent(dataset, folder / "sent")
        contents = [path.read_bytes() for path in sorted(sent.iterdir())]
        chosen = _backbones(workspace, dataset, weights)
        classifiers = {name: classifier_of(dataset, backbone) for name, (backbone, _) in chosen.items()}
        plain = _plain(next(iter(classifiers.values())), Path(weights), folder / "plain")
        services = [running.enter_context(serving(PLAIN, plain, folder / "run-plain"))]
        for version, (name, classifier) in enumerate(classifiers.items(), 1):
            tag = packed(name, version, classifier, folder)
            served = BentoStore(folder / "bentos").folder(tag)
            services.append(running.enter_context(serving(name, served, folder / f"run-{name}")))

        for service in services:
            service.load("warming", sent, ["--connections", 8], min(3.0, seconds))
        loops: dict[str, list[dict[str, float]]] = {name: [] for name in classifiers}
        for _ in range(runs):
            for service in services:
                service.load(f"{MOST} connections", sent, ["--connections", MOST], seconds)
                if classifier := classifiers.get(service.name):
                    loops[service.name].append(bare(classifier, contents, seconds))
        for service in services:
            for connections in CONNECTIONS:
                service.load(f"{connections} connections", sent, ["--connections", connections], seconds)
            most = _median(service.loads[f"{MOST} connections"], "requests a second")
            for share in SHARES:
                service.load(f"open {share:.0%}", sent, ["--rate", share * most], seconds)
        return {
            "machine": engines.machine(),
            "load average": [round(each, 1) for each in os.getloadavg()],
            "seconds a load": seconds,
            "rounds": runs,
            "services": {
                service.name: _report(service, services[0], loops.get(service.name, []), chosen)
                for service in services
            },
        }


def _backbones(workspace: Workspace, dataset: Dataset, weights: str) -> dict[str, tuple[Backbone, str]]:
    """The backbone, by the name of what runs it, and why that engine does."""
    reference = backbones.pretrained("mobilenet_v2", weights, mean=0.5, std=0.5)
    found = {"torch": (reference, "the reference")}
    for name, precision in (("exact", "fp32"), ("auto", "auto")):
        params.assign(workspace.root / "params.yaml", [f"embed.precision={precision}"])
        found[name] = with_engine(Workspace(workspace.root), dataset, reference, Progress(quiet=True))
    return found


def _plain(classifier: Classifier, weights: Path, folder: Path) -> Path:
    folder.mkdir()
    (folder / "service.py").write_text(
        PLAIN_SERVICE.replace("RESIZE", str(classifier.backbone.transform.resize))
    )
    (folder / "weights.pth").write_bytes(weights.read_bytes())
    return folder


def _sent(dataset: Dataset, folder: Path) -> Path:
    """Files of the pictures that are sent."""
    folder.mkdir()
    for number, id in enumerate(sorted(dataset.manifest["id"])[:SENT]):
        (folder / f"{number:03d}").write_bytes(dataset.picture(id))
    return folder


def _median(seen: Sequence[dict[str, Any]], key: str) -> float:
    return float(statistics.median(each[key] for each in seen))


def _report(
    service: Running,
    plain: Running,
    loops: list[dict[str, float]],
    chosen: dict[str, tuple[Backbone, str]],
) -> dict[str, Any]:
    key, rate = f"{MOST} connections", "requests a second"
    most = service.loads[key]
    against = [
        round(ours[rate] / theirs[rate], 2) for ours, theirs in zip(most, plain.loads[key], strict=True)
    ]
    report: dict[str, Any] = {
        "cold start s": round(service.cold_start, 1),
        "worker MB": round(service.worker_bytes() / 1e6),
        "loads": {
            what: {name: round(_median(seen, name), 2) for name in dict.fromkeys(FIGURES + LATENCIES)}
            | {"lost": sum(each["lost"] for each in seen)}
            for what, seen in service.loads.items()
        },
        "times the plain service": statistics.median(against),
        "of each round": against,
    }
    if loops:
        beyond = [
            served["server's CPU ms a request"] - loop["CPU ms a picture"]
            for served, loop in zip(most, loops, strict=True)
        ]
        backbone, reason = chosen[service.name]
        report |= {
            "engine": str(backbone.running),
            "reason": reason,
            "bare loop, pictures a second": _median(loops, "pictures a second"),
            "bare loop, CPU ms a picture": _median(loops, "CPU ms a picture"),
            "server's CPU beyond, ms a request": round(statistics.median(beyond), 2),
            "share of the bare loop": round(
                statistics.median(
                    served[rate] / loop["pictures a second"] for served, loop in zip(most, loops, strict=True)
                ),
                2,
            ),
        }
    return report


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    services: dict[str, Any] = result["services"]
    loads = [what for what in next(iter(services.values()))["loads"] if what != "warming"]
    lines = [["", *services]]
    lines += [
        [f"{what}, {figure}", *(str(each["loads"][what][figure]) for each in services.values())]
        for what in loads
        for figure in (LATENCIES if what.startswith("open") else FIGURES)
    ]
    lines += [[figure, *(str(each.get(figure, "")) for each in services.values())] for figure in SUMMARY]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--pictures", type=int, default=3240)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-serving.json")
    chosen = parser.parse_args()
    result = measure(chosen.data, chosen.pictures, chosen.seconds, chosen.runs)
    print(table(result))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
