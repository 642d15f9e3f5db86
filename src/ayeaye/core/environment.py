"""The environment of this process and of its children: what redirects them goes, what a person set on purpose stays.

goes      git's directory and index, a notebook's MPLBACKEND, stray runs and stores of MLflow, Prefect, DVC, …
comes     loopback in NO_PROXY, UTF-8, /bin/sh for DVC's stages
moves     the folders of PYTHONPATH to the end of Python's path: what is installed is found first
stays     all else: proxies, certificates, credentials, PREFECT_API_URL, identities, threads, devices
"""

from __future__ import annotations

import os
import re
import ssl
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
GUARD = PACKAGE / "core" / "guard"
# A person's own settings of git may sign, run hooks, change line ends, and hide dvc.yaml from DVC.
GIT_CONFIG = GUARD / "gitconfig"
_OWN_CONFIG = "AYEAYE_GIT_CONFIG"  # where these lie
LATER = "AYEAYE_LATER"  # folders that the guard appends to Python's path
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_FILES = (
    "CURL_CA_BUNDLE",
    "PREFECT_API_SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
)
_CERTIFICATES = ("PREFECT_API_SSL_CERT_FILE", "SSL_CERT_FILE")  # of the files, those that may be no folder
_IDENTITY = re.compile(r"GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL)")
_REDIRECTS = re.compile(
    r"""
      GIT_(?!(AUTHOR|COMMITTER)_(NAME|EMAIL)$|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM)$|SSH|SSL_|HTTP_|ASKPASS$|EXEC_PATH$
          |TERMINAL_PROMPT$).+                      # hooks and CI export them: another repository's
    | PYTHON(WARNINGS|OPTIMIZE|INSPECT|STARTUP|IOENCODING|VERBOSE|DEBUG|PROFILEIMPORTTIME)
    | DVC_(EXP_.+|STAGE|ROOT|DAEMON.*|SHOW_TRACEBACK)
    | PROMETHEUS_MULTIPROC_DIR | prometheus_multiproc_dir  # another program's counters
    | GX_CLOUD_.+                                   # Great Expectations then asks its cloud
    | MLFLOW_(TRACKING_URI|REGISTRY_URI|RUN_ID|EXPERIMENT_ID|EXPERIMENT_NAME  # release.tracking says where
             |STATIC_PREFIX|ARTIFACTS_ONLY|ENABLE_WORKSPACES|WORKSPACE.*)
    | BENTOML_(?!HOME$|DO_NOT_TRACK$).+             # `serve` in params.yaml says how
    | UVICORN_.+ | GUNICORN_CMD_ARGS | WEB_CONCURRENCY
    """,
    re.VERBOSE,
)
_OTHER_PREFECT = re.compile(r"PREFECT_(API_URL|API_KEY|PROFILE|PROFILES_PATH|CLOUD_.+|SERVER_API_BASE_PATH)")


def amended(given: Mapping[str, str]) -> dict[str, str]:
    """The environment for what runs for a workspace, made from the one that was given; the same if made again."""
    unusable = unused(given)
    made = {
        name: value
        for name, value in given.items()
        if not _REDIRECTS.fullmatch(name)
        and name not in unusable
        and (value.strip() or not _IDENTITY.fullmatch(name))  # git commits for nobody
    }
    made |= {"MPLBACKEND": "Agg", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
    made |= {"GIT_CONFIG_GLOBAL": str(GIT_CONFIG), "GIT_CONFIG_NOSYSTEM": "1"}
    own = given.get("GIT_CONFIG_GLOBAL", "")
    made[_OWN_CONFIG] = given.get(_OWN_CONFIG, "") if own == str(GIT_CONFIG) else own
    made["SHELL"] = "/bin/sh"  # DVC runs its stages by it; a service's account may have none
    if not made.get("PREFECT_API_URL"):  # empty is none
        made = of_own_prefect(made)
    return made | _no_proxy(made) | _python_path(made)


def with_own_git(made: Mapping[str, str]) -> dict[str, str]:
    """An amended environment in which git knows the person."""
    ours = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")
    own = {"GIT_CONFIG_GLOBAL": made[_OWN_CONFIG]} if made[_OWN_CONFIG] else {}
    return {name: made[name] for name in made if name not in ours} | own


def unused(given: Mapping[str, str]) -> dict[str, str]:
    """By name what cannot be used, with the reason: clients fail over it, even where they need neither."""
    return {name: fault for name, value in given.items() if value and (fault := _fault(name, value))}


def _fault(name: str, value: str) -> str | None:
    if name.lower() in _PROXIES:
        return _fault_of_proxy(value)
    if name in _FILES and not Path(value).exists():
        return f"there is no {value}"
    if name in _CERTIFICATES and not _holds_certificates(value):
        return f"{value} holds no certificates that can be read"
    if name == "SSLKEYLOGFILE":
        try:
            Path(value).open("ab").close()
        except OSError as error:
            return f"{value} cannot be written ({error.strerror})"
    return None


def _fault_of_proxy(proxy: str) -> str | None:
    scheme = proxy.partition("://")[0].strip().lower() if "://" in proxy else "http"
    if scheme not in ("http", "https", "socks5", "socks5h"):
        return f"no client knows proxies of {scheme}"
    if scheme.startswith("socks") and not find_spec("socksio"):
        return "a SOCKS proxy needs `pip install socksio`"
    if not _is_url(
        proxy if "://" in proxy else f"http://{proxy}"
    ):  # which is not shown: it may hold a password
        return "it is no URL; write # / ? in a password as %23 %2F %3F"
    return None


def _is_url(text: str) -> bool:
    """Whether clients can read it."""
    from httpx import URL, InvalidURL  # slow to import, and seldom needed

    try:
        URL(text)
    except InvalidURL:
        return False
    return True


@cache
def _holds_certificates(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True


def of_own_prefect(given: Mapping[str, str]) -> dict[str, str]:
    """For a Prefect server of ours and its clients: nothing that leads to another, one password on both sides."""
    made = {name: value for name, value in given.items() if not _OTHER_PREFECT.fullmatch(name)}
    if password := given.get("PREFECT_SERVER_API_AUTH_STRING"):
        made["PREFECT_API_AUTH_STRING"] = password
    return made


def configured_prefect() -> str | None:
    """The API of a Prefect server that a person chose."""
    return os.environ.get("PREFECT_API_URL") or None


def become(environment: Mapping[str, str]) -> None:
    """Make it the environment of this process, for what runs in it and what it starts."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def prefer_installed() -> None:
    """Have modules found where Python and its packages are installed, before PYTHONPATH and the current folder.

    To be called before anything is imported that a `random.py` there would break.
    """
    theirs = {os.path.realpath(folder) for folder in _split(os.environ.get("PYTHONPATH"))}
    with suppress(FileNotFoundError):  # it may be gone
        theirs.add(os.path.realpath(Path.cwd()))
    theirs.discard(os.path.realpath(PACKAGE.parent))
    sys.path.sort(key=lambda folder: os.path.realpath(folder or ".") in theirs)  # stable
    if os.environ.get("PYTHONWARNINGS"):  # made errors of, the warnings of packages end the program
        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def _no_proxy(given: Mapping[str, str]) -> dict[str, str]:
    """Loopback among the hosts that are reached without a proxy; httpx fails over hosts that it cannot read."""
    said = re.split(r"[\s,]+", f"{given.get('no_proxy', '')},{given.get('NO_PROXY', '')}")
    if not any(said) and not any(given.get(name) for name in given if name.lower() in _PROXIES):
        return {}
    hosts = [host for each in said if (host := each.strip("[]")) and _is_url(_pattern(host))]
    # Every host is meant only where the star stands alone.
    value = "*" if "*" in hosts else ",".join(dict.fromkeys((*hosts, *_LOOPBACK)))
    return {"no_proxy": value, "NO_PROXY": value}


def _pattern(host: str) -> str:
    """What httpx makes of a host, about."""
    if "://" in host:
        return host
    return f"all://[{host}]" if host.count(":") > 1 else f"all://*{host}"


def _python_path(given: Mapping[str, str]) -> dict[str, str]:
    """The guard first, and in its care the folders of the person; first too what ayeaye itself was found by."""
    folders = [folder for folder in _split(given.get("PYTHONPATH")) if folder != str(GUARD)]
    if not folders:
        return {}
    own = [folder for folder in folders if os.path.realpath(folder) == os.path.realpath(PACKAGE.parent)]
    later = dict.fromkeys((*_split(given.get(LATER)), *(folder for folder in folders if folder not in own)))
    return {"PYTHONPATH": os.pathsep.join((str(GUARD), *own)), LATER: os.pathsep.join(later)}


def _split(folders: str | None) -> list[str]:
    """Absolute, since children run elsewhere."""
    return [str(Path(folder).absolute()) for folder in (folders or "").split(os.pathsep) if folder]
