"""What a file really is, told by its content, where it is not what its name promises."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = 4096
_AGAIN = "fetch it again"
# How a content begins -> what it is, and what to do about it.
_BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("compressed with gzip", "unpack it with gunzip"),
    b"BZh": ("compressed with bzip2", "unpack it with bunzip2"),
    b"\xfd7zXZ\0": ("compressed with xz", "unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it with unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-zip archive", "unpack it"),
    b"Rar!": ("a RAR archive", "unpack it"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "save it as CSV UTF-8"),
    b"%PDF": ("a PDF", _AGAIN),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "run `git lfs pull` where it is from"),
    b"\xff\xfe": ("UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16", "save it as UTF-8"),
    b"\x93NUMPY": ("an .npy of NumPy, one array alone", "save it as the format that is expected"),
    b"\x89HDF": ("HDF5", "save it as the format that is expected"),
    b"PAR1": ("Parquet", "save it as the format that is expected"),
    b"\x89PNG": ("a PNG picture", _AGAIN),
    b"\xff\xd8\xff": ("a JPEG picture", _AGAIN),
    b"ftyphei": ("a HEIC picture", "save it as JPEG"),
    b"ftyphevc": ("a HEIC picture", "save it as JPEG"),
    b"ftypmif1": ("a HEIC picture", "save it as JPEG"),
    b"ftypavi": ("an AVIF picture", "save it as JPEG"),
}  # fmt: skip
_PICKLE = re.compile(rb"\x80[\x02-\x05].{0,9}[c\x8c}\]\x95]", re.DOTALL)
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|\?xml|error)\b", re.IGNORECASE)
_SVG = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg\b", re.DOTALL
)


def foreign(content: bytes, *but: str) -> str | None:
    """What a content is that is no plain text, and what to do: `is UTF-16: save it as UTF-8`; else None.

    Its first HEAD bytes are enough. `but` are what is expected: `gzip`, `zip`, `pickle`, `HDF5`, `Parquet`.
    """
    if content and not content.strip(b"\0"):
        return f"holds zeros alone, as a download does that was cut off: {_AGAIN}"
    if content.startswith(b"PK\x03\x04") and "zip" not in but:
        return _archive(content)
    if _SVG.match(content):
        return "is an SVG drawing: save it as PNG"
    if _PAGE.match(content):
        return "is a web page, such as an error that was saved in its place: fetch it again (curl --fail --location)"
    for beginning, (what, mend) in _BEGINNINGS.items():
        start = 4 if beginning.startswith(b"ftyp") else 0  # after the size of that part
        if content.startswith(beginning, start) and not set(but).intersection(what.split()):
            return f"is {what}: {mend}"
    if "pickle" in but:
        return None
    if _PICKLE.match(content):
        return "is a pickle of Python, which may run code and is not read: save it as plain text or numbers"
    zeros = content[:HEAD].count(0)
    if zeros > len(content[:HEAD]) // 4 and _is_text(content[:HEAD].replace(b"\0", b"")):
        return "is UTF-16: save it as UTF-8"
    return None


def foreign_file(path: Path, *but: str) -> str | None:
    """The same of a file that can be read."""
    with path.open("rb") as file:
        return foreign(file.read(HEAD), *but)


def unlike_utf8(path: Path, error: UnicodeDecodeError) -> str:
    """Why a text file cannot be read as UTF-8, and what to do."""
    found = foreign_file(path)
    if found:
        return found
    start = max(error.start - 20, 0)
    line = bytes(error.object[: error.start]).count(b"\n") + 1
    said = bytes(error.object[start : error.start + 10]).decode("latin-1").splitlines()
    near = next((each for each in reversed(said) if each.strip()), "")
    return (
        f"is not UTF-8 (byte {error.start}, line {line}, near {near.strip()!r} as Latin-1 has it): save it as UTF-8, "
        "such as with `iconv -f latin1 -t utf-8`"
    )


def _archive(content: bytes) -> str:
    if b"[Content_Types].xml" in content or b"xl/" in content:
        return "is an Excel workbook: save it as CSV UTF-8"
    if b".npy" in content[:100]:
        return "is an .npz of NumPy: save it as the format that is expected"
    if b"data.pkl" in content[:200]:
        return "is a checkpoint of torch: name it in embed.weights"
    return "is a zip archive: unpack it, and name the file in it"


def _is_text(content: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\r\n" for byte in content)
