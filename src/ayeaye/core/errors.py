"""Every error a person can mend, as one tree.

AyeayeError
├── ParamsError            params.yaml: an unknown key, a wrong value, broken YAML
├── WorkspaceError         not a workspace, or its git, DVC or lock is not as it should be
│   └── WorkspaceBusy      another run holds the workspace
├── StageFailed            a stage ended in a way that it had no words for
├── DataError
│   ├── SourceError        the source of photographs or features, or its class table
│   ├── PictureError       one picture that cannot be read within the limits
│   ├── CheckFailed        an expectation on data was not met
│   └── DataGone           data of an earlier time that neither the cache nor the remote holds
├── ClassSpaceError        class vectors cannot be built
│   ├── UnknownWords       a class without any known word
│   ├── IncompleteClass    a class that lacks what its vector is made of
│   ├── TakenName          a class with the name of another
│   ├── NoSuchClass        a name that no class has
│   └── CoincidentClasses  two classes with the same vector
├── BackboneError          an unknown network, or weights that do not fit
├── BundleError            a classifier bundle that is damaged or of another version
├── RegistryError          MLflow cannot be reached, or a version is not there
├── RemoteError            the DVC remote cannot be reached
├── StoreError             what the service keeps cannot be reached, read or written
│   ├── Conflict           a run-time class of that name is there already, or feedback was decided otherwise
│   │   └── Outdated       the run-time classes are no longer those that a new one was compared with
│   ├── NotKept            no class of that name, or no feedback of that number
│   └── StoreFull          as many run-time classes, or as much pending feedback, as is allowed
└── ReleaseError           a Bento cannot be built, tried or served
    ├── SmokeTestFailed        the Bento answered, but not as it should
    ├── Incomparable       two classifiers cannot be measured on the same pictures
    └── NoCard             what is recorded of a version makes no model card

A message names the thing, its value, what was expected and what to do, in one or two lines.
"""

from collections.abc import Mapping, Sequence


def listed(items: Sequence[str], most: int = 5) -> str:
    """A few items by name and how many more there are, for a message."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _words(unknown: Mapping[str, Sequence[str]]) -> str:
    told = (f"{word} (near: {', '.join(near)})" if near else word for word, near in unknown.items())
    return ", ".join(told) or "no words"


class AyeayeError(Exception):
    """A fault a person can mend; its message is all that is shown.

    `details`: all that was found, a line each, where the message names the first few.
    """

    def __init__(self, message: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details


def of_type(name: str, message: str) -> AyeayeError:
    """The error of a type by its name, as another process told it."""
    known: list[type[AyeayeError]] = [AyeayeError]
    for each in known:
        known += each.__subclasses__()
    return next((each for each in known if each.__name__ == name), AyeayeError)(message)


class ParamsError(AyeayeError):
    pass


class WorkspaceError(AyeayeError):
    pass


class WorkspaceBusy(WorkspaceError):
    pass


class StageFailed(AyeayeError):
    pass


class DataError(AyeayeError):
    pass


class SourceError(DataError):
    pass


class PictureError(DataError):
    pass


class CheckFailed(DataError):
    pass


class DataGone(DataError):
    pass


class ClassSpaceError(AyeayeError):
    pass


class UnknownWords(ClassSpaceError):
    """`unknown`: by class its words, and for each of the first few the near ones that are known."""

    def __init__(self, message: str, unknown: dict[str, dict[str, list[str]]] | None = None) -> None:
        self.unknown = unknown or {}
        super().__init__(message, [f"{name}: {_words(words)}" for name, words in self.unknown.items()])


class IncompleteClass(ClassSpaceError):
    """`needs`: the columns, or `description`, that have to be given."""

    def __init__(self, message: str, needs: list[str] | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message, details)
        self.needs = needs or []


class TakenName(ClassSpaceError):
    pass


class NoSuchClass(ClassSpaceError):
    """`unknown`: the names, and for each of the first few the near ones that there are."""

    def __init__(self, message: str, unknown: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.unknown = unknown or {}


class CoincidentClasses(ClassSpaceError):
    pass


class BackboneError(AyeayeError):
    pass


class BundleError(AyeayeError):
    pass


class RegistryError(AyeayeError):
    pass


class RemoteError(AyeayeError):
    pass


class StoreError(AyeayeError):
    pass


class Conflict(StoreError):
    pass


class Outdated(Conflict):
    pass


class NotKept(StoreError):
    """`unknown`: the name, and the near ones that there are, where it is a name."""

    def __init__(self, message: str, unknown: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.unknown = unknown or {}


class StoreFull(StoreError):
    pass


class ReleaseError(AyeayeError):
    pass


class SmokeTestFailed(ReleaseError):
    pass


class Incomparable(ReleaseError):
    pass


class NoCard(ReleaseError):
    pass
