"""Engines: the programs that run a backbone's network, and which of them one is run with.

    torch        fp32        the reference, and the only one on CUDA
    onnxruntime  fp32        the same figures to about 1e-6, several times as fast on a CPU
    openvino     fp32, bf16  the same; bf16, on CPUs that have it, is faster again and off by some per cent

An engine that agrees with torch to a relative error of EXACT on every picture it is tried on is exact, and always
allowed. Reduced precision is allowed only where it does not change what pictures are called. Engines are chosen
before there is a classifier, so labels are those of the nearest class mean (Mensink et al., 2013): means of the
embeddings of training pictures of seen classes, and the nearest of them to each picture of a validation sample,
all of it once in fp32 and once in reduced precision, each with its own means as a training would have. Of at
least LEAST labels the share AGREEMENT must be the same.

Every engine but torch runs one ONNX graph, exported once from the network; it is kept beside the weights, so that
nothing is exported where the backbone is served.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ayeaye.core.errors import BackboneError

if TYPE_CHECKING:
    import torch

Runner = Callable[[np.ndarray], np.ndarray]  # inputs (n, 3, h, w) float32 to embeddings (n, d) float32

EXACT = 1e-4  # largest relative error, of the worst picture, of an exact engine
AGREEMENT = 0.995  # least share of equal labels for reduced precision
LEAST = 200  # labels; of fewer, one in two hundred cannot be told
WORTHWHILE = 1.15  # times as fast as a simpler choice, or that one it is
_OPSET = 17
_ROUNDS = 3


@dataclass(frozen=True)
class Engine:
    """An engine in a precision; `str` gives what people read."""

    name: str = "torch"
    precision: str = "fp32"

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"

    @property
    def exact(self) -> bool:
        return self.precision == "fp32"


TORCH = Engine()
CANDIDATES = (Engine("onnxruntime"), Engine("openvino"), Engine("openvino", "bf16"))


class MissingEngine(BackboneError):
    """An engine that cannot run here, with the reason."""


@dataclass(frozen=True)
class Choice:
    """The engine to run with and why, with the milliseconds a picture of each that was tried."""

    engine: Engine
    reason: str
    milliseconds: dict[str, float] = field(default_factory=dict)


def choose(
    network: torch.nn.Module,
    side: int,
    inputs: np.ndarray,
    agreement: Callable[[Runner, Runner], tuple[int, int]],
    *,
    wanted: str = "auto",
    reduced: bool = True,
) -> Choice:
    """The fastest engine that is allowed for a network on this machine's CPU.

    `inputs` (n, 3, side, side) are real pictures, to time and to check on. `agreement`, given an exact runner and a
    reduced one, counts labels that are equal, and labels; asked only where the reduced one is faster. `wanted` is
    `auto`, or the one engine that may be chosen. Raises BackboneError where the wanted one cannot run here or is
    not exact.
    """
    trial = _Trial(inputs, agreement, wanted)
    reference = trial.time(TORCH, lambda: runner_of_torch(network))
    graph = functools.cache(export)
    offered = [engine for engine in CANDIDATES if wanted in ("auto", engine.name)]
    for engine in offered:
        if engine.exact:
            trial.exact(engine, lambda: start(engine, graph(network, side)), reference)  # noqa: B023
    exact = trial.fastest(TORCH if wanted == "auto" else Engine(wanted))
    for engine in offered:
        if reduced and not engine.exact:
            trial.reduced(engine, lambda: start(engine, graph(network, side)), exact)  # noqa: B023
    return trial.choice(exact)


class _Trial:
    """One choice in the making: what runs, how long each takes, and why some may not be chosen."""

    def __init__(
        self, inputs: np.ndarray, agreement: Callable[[Runner, Runner], tuple[int, int]], wanted: str
    ) -> None:
        self.inputs, self.agreement, self.wanted = inputs, agreement, wanted
        self.runners: dict[Engine, Runner] = {}
        self.milliseconds: dict[Engine, float] = {}
        self.refused: dict[Engine, str] = {}

    def exact(self, engine: Engine, started: Callable[[], Runner], reference: np.ndarray) -> None:
        """Try one that has to agree with the reference (n, d)."""
        try:
            off = relative_error(self.time(engine, started), reference)
            if not off <= EXACT:  # NaN is not
                raise MissingEngine(f"{engine} is off by {off:.1g}, more than {EXACT:g}")
        except MissingEngine as error:
            if self.wanted != "auto":
                raise _unusable(self.wanted, error) from None
            self.refused[engine] = str(error)

    def reduced(self, engine: Engine, started: Callable[[], Runner], exact: Engine) -> None:
        """Try one that has to give pictures the same labels as an exact one."""
        try:
            self.time(engine, started)
        except MissingEngine as error:
            self.refused[engine] = str(error)
            return
        if self.milliseconds[engine] * WORTHWHILE > self.milliseconds[exact]:
            return
        equal, labels = self.agreement(self.runners[exact], self.runners[engine])
        if labels < LEAST:
            self.refused[engine] = (
                f"{engine} needs {LEAST} validation pictures to compare labels, of {labels}"
            )
        elif equal < AGREEMENT * labels:
            self.refused[engine] = f"{engine} keeps {equal} of {labels} labels, less than {AGREEMENT:.1%}"

    def time(self, engine: Engine, started: Callable[[], Runner]) -> np.ndarray:
        """Embeddings (n, d) of the inputs; the fastest round counts, as what else runs here only ever slows one."""
        run = self.runners[engine] = started()
        embeddings, seconds = run(self.inputs), list[float]()
        for _ in range(_ROUNDS):
            before = time.perf_counter()
            run(self.inputs)
            seconds.append(time.perf_counter() - before)
        self.milliseconds[engine] = 1000 * min(seconds) / len(self.inputs)
        return embeddings

    def fastest(self, found: Engine) -> Engine:
        """Of those that may be chosen, `found` unless another is clearly faster: less is noise.

        The simpler ones, which were tried before, win where two are alike, so that a new trial finds the same.
        """
        for engine, milliseconds in self.milliseconds.items():
            allowed = engine not in self.refused and self.wanted in ("auto", engine.name)
            if allowed and milliseconds * WORTHWHILE <= self.milliseconds[found]:
                found = engine
        return found

    def choice(self, exact: Engine) -> Choice:
        found = self.fastest(exact)
        times = self.milliseconds[TORCH] / self.milliseconds[found]
        said = (
            "nothing that is allowed is faster" if found == TORCH else f"{times:.1f} times as fast as torch"
        )
        milliseconds = {str(engine): round(value, 3) for engine, value in self.milliseconds.items()}
        return Choice(found, "; ".join([said, *self.refused.values()]), milliseconds)


def relative_error(embeddings: np.ndarray, reference: np.ndarray) -> float:
    """The largest of any row (d,): distance from the reference over the reference's length. NaN where one is."""
    off = np.linalg.norm(embeddings - reference, axis=1)
    return float((off / np.maximum(np.linalg.norm(reference, axis=1), np.finfo(np.float32).tiny)).max())


def nearest_means(embeddings: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(m,) numbers of the classes whose means are nearest to queries (m, d): embeddings (n, d), classes y (n,).

    By the cosine about the mean of all, as classes are compared elsewhere. -1 where a score is not a number.
    """
    labels = np.unique(y)
    centre = embeddings.mean(axis=0)
    means = np.stack([embeddings[y == label].mean(axis=0) for label in labels]) - centre
    with np.errstate(all="ignore"):
        scores = (queries - centre) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    return np.where(np.isfinite(scores).all(axis=1), labels[scores.argmax(axis=1)], -1)


def machine() -> dict[str, str]:
    """What a choice depends on: the CPU, its cores that may be used, and the versions of the engines and of what
    writes their graph."""
    versions = {}
    for name in ("torch", "onnx", "onnxruntime", "openvino"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"cpu": _cpu(), "cores": str(cores()), **versions}


def cores() -> int:
    """How many an engine may use: OMP_NUM_THREADS, else those this process may run on."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0))


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# Export


def export(network: torch.nn.Module, side: int) -> bytes:
    """The network as an ONNX graph from `inputs` (n, 3, side, side) to `embeddings`, n free.

    Raises MissingEngine where it cannot be written as one.
    """
    import torch

    _module("onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        try:
            with _quietly():
                torch.onnx.export(
                    network,
                    (torch.zeros(2, 3, side, side),),
                    path,
                    input_names=["inputs"],
                    output_names=["embeddings"],
                    dynamic_axes={"inputs": {0: "n"}, "embeddings": {0: "n"}},
                    opset_version=_OPSET,
                    dynamo=False,  # the newer exporter needs two more packages, and longer
                )
        except Exception as error:  # the exporter's own are many and unrelated
            raise MissingEngine(f"the network cannot be exported to ONNX ({_first_line(error)})") from None
        return path.read_bytes()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's warnings, and with attention as the operators that ONNX knows."""
    import warnings

    import torch

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # It prints a graph that it cannot write, whatever it is told: not among what a stage prints.
    torch._C._jit_set_onnx_log_output_stream("stderr")
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


# Running


def runner_of_torch(network: torch.nn.Module) -> Runner:
    """torch, on whatever device the network lies; in float32, also where CUDA would round to TF32."""
    import torch

    device, cudnn = next(network.parameters()).device, torch.backends.cudnn
    exact = (
        nullcontext
        if device.type != "cuda"
        else functools.partial(cudnn.flags, enabled=True, allow_tf32=False)
    )

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), exact():
            given = torch.from_numpy(inputs).to(device, memory_format=torch.channels_last)
            return network(given).flatten(1).float().cpu().numpy()

    return run


def start(engine: Engine, graph: bytes) -> Runner:
    """A runner of an exported graph, safe to call from several threads; raises MissingEngine."""
    make = _onnxruntime(graph) if engine.name == "onnxruntime" else _openvino(graph, engine.precision)
    try:
        return _Spread(make)
    except Exception as error:  # the engines' own have no common base
        raise MissingEngine(f"{engine.name} cannot load the network ({_first_line(error)})") from None


def start_or_less(engine: Engine, graph: bytes | None) -> tuple[Engine, Runner | None, str | None]:
    """An engine, or what comes nearest to it here: the same one in fp32, else torch, which runs no graph.

    Gives what runs, its runner (None for torch), and why it is not the one asked for (None where it is).
    """
    if engine == TORCH:
        return TORCH, None, None
    if graph is None:
        return TORCH, None, f"{engine.name} has no graph to run"
    reason = None
    for stand_in in dict.fromkeys((engine, Engine(engine.name))):
        try:
            return stand_in, start(stand_in, graph), reason
        except MissingEngine as error:
            reason = reason or str(error)
    return TORCH, None, reason


class _Spread:
    """A runner of single pictures that are spread over the cores.

    One picture at a time on one core, its activations stay in that core's cache: a third faster than a batch of 32
    on all cores together. Fewer pictures than cores are run one after the other, each on all of them.
    """

    def __init__(self, make: Callable[[int], Callable[[np.ndarray], np.ndarray]]) -> None:
        """`make` gives a function of (1, 3, h, w), safe to call from several threads, that uses so many cores."""
        self._make = functools.cache(make)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(cores(), thread_name_prefix="engine")
        self._one(1)  # what cannot be loaded says so at once

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        inputs = np.ascontiguousarray(inputs, np.float32)
        pictures = [inputs[row : row + 1] for row in range(len(inputs))]
        if len(pictures) < cores():
            rows = [self._one(cores())(picture) for picture in pictures]
        else:
            rows = list(self._pool.map(self._one(1), pictures))
        return np.concatenate([row.reshape(1, -1) for row in rows])

    def _one(self, cores: int) -> Callable[[np.ndarray], np.ndarray]:
        with self._lock:
            return self._make(cores)


def _onnxruntime(graph: bytes) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    ort = _module("onnxruntime")

    def make(cores: int) -> Callable[[np.ndarray], np.ndarray]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = cores
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda picture: session.run(None, {"inputs": picture})[0]

    return make


def _openvino(graph: bytes, precision: str) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    ov = _module("openvino")
    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise MissingEngine("this CPU has no bfloat16")

    def make(used: int) -> Callable[[np.ndarray], np.ndarray]:
        model = core.read_model(graph)
        model.reshape([1, *model.input(0).partial_shape[1:]])
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
            "INFERENCE_NUM_THREADS": cores(),
            "NUM_STREAMS": cores() // used,
        }
        compiled = core.compile_model(model, "CPU", settings)
        own = threading.local()  # a request runs one picture at a time

        def run(picture: np.ndarray) -> np.ndarray:
            if not hasattr(own, "request"):
                own.request = compiled.create_infer_request()
            own.request.infer([picture], share_inputs=True)
            return own.request.get_output_tensor().data.copy()

        return run

    return make


def check_installed(wanted: str) -> None:
    """Raises BackboneError where an engine other than torch, which embed.engine names, cannot run here."""
    try:
        for module in ("onnx", wanted):
            _module(module)
    except MissingEngine as error:
        raise _unusable(wanted, error) from None


def _unusable(wanted: str, error: MissingEngine) -> BackboneError:
    return BackboneError(f"embed.engine is {wanted}: {error}; use auto or torch, or mend it")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = "is not installed" if importlib.util.find_spec(name) is None else f"does not load ({error})"
        raise MissingEngine(f"{name} {reason}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()[:160]
