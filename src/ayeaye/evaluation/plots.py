"""The pictures of an evaluation, as PNG bytes by name; colours can be told apart by colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

# Okabe & Ito (2008).
SEEN, UNSEEN, GOOD, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
NAMED = 48  # more classes than this are drawn without their names


def draw(
    measured: dict[str, Any],
    names: Sequence[str],
    seen: np.ndarray,
    *,
    vectors: np.ndarray | None = None,
    confused: tuple[Sequence[int], np.ndarray] | None = None,
    reliable: dict[str, Any] | None = None,
) -> dict[str, bytes]:
    """Every plot there is something to show for, by file name without its ending.

    `measured` is the result of `metrics.measure` over classes `names` (C,) and `seen` (C,) bool; `vectors`
    (C, k) the class space, `confused` the class indices (m,) and shares (m, m) of `metrics.confusion`,
    `reliable` the result of `metrics.reliability`.
    """
    drawn: dict[str, bytes] = {}
    if measured["AUSUC"] is not None:
        drawn["seen_unseen_curve"] = seen_unseen_curve(measured)
    if measured["per_class"]:
        drawn["per_class_accuracy"] = per_class_accuracy(measured, names)
    if confused is not None and np.isfinite(confused[1]).any():
        drawn["confusion_unseen"] = confusion_unseen([names[c] for c in confused[0]], confused[1])
    if measured["hubness"]["skewness"] is not None:
        drawn["hubness"] = hubness(measured, names, seen)
    if vectors is not None and len(vectors) > 2:
        drawn["class_space"] = class_space(vectors, names, seen)
    if reliable is not None and reliable["ece"] is not None:
        drawn["reliability"] = reliability(reliable)
    return drawn


def seen_unseen_curve(measured: dict[str, Any]) -> bytes:
    """U against S over every offset γ, the chosen γ, no offset, and chance."""
    figure, axes = _figure(6.4, 4.6)
    points, raw, base = measured["curve"], measured["uncalibrated"], measured["baselines"]
    axes.fill_between(points["seen"], points["unseen"], color=SEEN, alpha=0.10, lw=0)
    axes.plot(points["seen"], points["unseen"], color=SEEN, lw=2.2, label=f"AUSUC {measured['AUSUC']:.3f}")
    _lines_of_equal_h(axes)
    axes.plot(
        raw["S"], raw["U"], "o", ms=9, mfc="white", mec=GREY, mew=2, label=f"no offset, H {raw['H']:.3f}"
    )
    axes.plot(
        measured["S"],
        measured["U"],
        "D",
        ms=10,
        color=UNSEEN,
        label=f"chosen offset γ = {measured['gamma']:.3g}, H {measured['H']:.3f}",
    )
    axes.plot(base["S"], base["U"], "x", ms=8, mew=2, color="black", label="chance")
    axes.set(xlabel="S: accuracy on seen classes", ylabel="U: accuracy on unseen classes")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper right", fontsize=9)
    return _png(figure)


def per_class_accuracy(measured: dict[str, Any], names: Sequence[str]) -> bytes:
    """Accuracy of each class among all classes, sorted, with its interval; unseen and seen apart."""
    records = [r for r in measured["per_class"] if not r["seen"]] or measured["per_class"]
    groups = [sorted(records, key=lambda r: (r["accuracy"], r["class"]))]
    known = [r for r in measured["per_class"] if r["seen"]]
    if known and known is not records and not records[0]["seen"]:
        groups.append(sorted(known, key=lambda r: (r["accuracy"], r["class"])))
    most = max(len(group) if len(group) <= NAMED else 20 for group in groups)
    height = float(np.clip(1.2 + 0.24 * most, 3.0, 12.0))
    figure, axes = _figure(4.4 * len(groups), height, len(groups))
    for axis, group in zip(np.atleast_1d(axes), groups, strict=True):
        _bars(axis, group, names, measured)
    return _png(figure)


def confusion_unseen(names: Sequence[str], shares: np.ndarray) -> bytes:
    """Rows: the true unseen class; columns: the answer among unseen classes; darker is more."""
    side = float(np.clip(2.2 + 0.28 * len(names), 4.2, 9.0))
    figure, axes = _figure(side + 0.8, side)
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="answer", ylabel="true class")
    axes.grid(False)
    if len(names) <= NAMED:
        axes.set_xticks(range(len(names)), [_short(n) for n in names], rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), [_short(n) for n in names], fontsize=8)
    if len(names) <= 12:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share) and share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the class's pictures")
    return _png(figure)


def hubness(measured: dict[str, Any], names: Sequence[str], seen: np.ndarray) -> bytes:
    """N_k of each class over its mean, most frequent first, on the band of a random draw."""
    hubs = measured["hubness"]
    relative = np.array(hubs["relative"], dtype=float)
    order = np.argsort(-relative, kind="stable")
    figure, axes = _figure(7.2, 3.9)
    place = np.arange(len(order))
    axes.fill_between(
        place, hubs["null_low"], hubs["null_high"], color=GREY, alpha=0.28, lw=0, label="95 % of random draws"
    )
    axes.axhline(1, color=GREY, lw=1)
    for role, colour, marker in ((True, SEEN, "o"), (False, UNSEEN, "D")):
        mine = seen[order] == role
        label = "seen class" if role else "unseen class"
        axes.plot(place[mine], relative[order][mine], marker, ms=5, color=colour, label=label)
    for i in place[: 3 if len(place) > 5 else 0]:
        if relative[order[i]] > 1:
            axes.annotate(
                _short(names[order[i]]),
                (i, relative[order[i]]),
                xytext=(7, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
            )
    axes.set(xlabel="classes, most frequent first", ylabel=f"times among the {hubs['k']} nearest ÷ mean")
    axes.set_ylim(bottom=0)
    axes.set_title(f"skewness {hubs['skewness']:.2f}, null {hubs['null']:.2f}", fontsize=10, loc="left")
    axes.legend(fontsize=9)
    return _png(figure)


def class_space(vectors: np.ndarray, names: Sequence[str], seen: np.ndarray) -> bytes:
    """The class vectors on their first two principal components."""
    centred = np.asarray(vectors, dtype=np.float64) - np.mean(vectors, axis=0)
    u, singular, _ = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is free: fixed, so that the same space always makes the same picture.
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
    flat = np.zeros((len(u), 2))
    flat[:, : min(2, u.shape[1])] = (u * signs * singular)[:, :2]
    shares = np.r_[singular**2 / max(float(np.sum(singular**2)), 1e-12), 0, 0]
    figure, axes = _figure(7.2, 5.4)
    for role, colour, marker in ((True, SEEN, "o"), (False, UNSEEN, "D")):
        mine = seen == role
        label = f"{mine.sum()} {'seen' if role else 'unseen'} classes"
        axes.scatter(*flat[mine].T, c=colour, marker=marker, s=34, alpha=0.85, lw=0, label=label)
    for i in _named(seen):
        axes.annotate(
            _short(names[i]), flat[i], xytext=(5, 3), textcoords="offset points", fontsize=8, color="#333333"
        )
    axes.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {shares[1]:.0%}")
    axes.margins(0.1)
    axes.legend(fontsize=9)
    return _png(figure)


def reliability(reliable: dict[str, Any]) -> bytes:
    """Stated confidence against what came true, and how many pictures stand behind each point."""
    figure, axes = _figure(5.2, 4.6)
    pictures = np.array(reliable["pictures"], dtype=float)
    axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1.2, label="as stated")
    axes.plot(reliable["confidence"], reliable["accuracy"], color=SEEN, lw=1.6)
    sizes = 25 + 260 * pictures / pictures.max()
    axes.scatter(reliable["confidence"], reliable["accuracy"], s=sizes, color=SEEN, alpha=0.8, lw=0)
    axes.set(xlabel="stated confidence", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    title = f"mean distance (ECE) {reliable['ece']:.3f}; larger dots, more pictures"
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(loc="upper left", fontsize=9)
    return _png(figure)


def _bars(axes: Any, records: list[dict[str, Any]], names: Sequence[str], measured: dict[str, Any]) -> None:
    seen = records[0]["seen"]
    place = np.arange(len(records))
    share = np.array([r["accuracy"] for r in records])
    low, high = np.array([r["interval"] for r in records]).T
    colour = SEEN if seen else UNSEEN
    if len(records) <= NAMED:
        axes.barh(place, share, color=colour, alpha=0.75, height=0.72)
        axes.hlines(place, low, high, color="#222222", lw=1.1)
        axes.set_yticks(place, [_short(names[r["class"]]) for r in records], fontsize=8)
    else:
        axes.fill_betweenx(place, low, high, color=colour, alpha=0.22, lw=0)
        axes.plot(share, place, color=colour, lw=2)
        axes.set_yticks([])
    mean = measured["S" if seen else "U"]
    axes.axvline(mean, color="#222222", lw=1.2, ls="--", label=f"mean {mean:.3f}")
    axes.axvline(measured["baselines"]["S" if seen else "U"], color=GREY, lw=1.2, ls=":", label="chance")
    axes.set(xlim=(0, 1), ylim=(-0.7, len(records) - 0.3), xlabel="accuracy among all classes")
    axes.set_title(f"{len(records)} {'seen' if seen else 'unseen'} classes", fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="lower right")


def _lines_of_equal_h(axes: Any) -> None:
    s = np.linspace(0.001, 1, 400)
    for h in (0.2, 0.4, 0.6, 0.8):
        u = np.divide(h * s, 2 * s - h, out=np.full_like(s, np.nan), where=2 * s > h)
        axes.plot(s, np.where(u <= 1, u, np.nan), color=GREY, lw=0.7, alpha=0.6)
        axes.text(1.005, h / (2 - h), f"H {h}", fontsize=7, color=GREY, va="center")


def _named(seen: np.ndarray) -> np.ndarray:
    """The classes whose names fit into a picture: all, or the unseen ones, or none."""
    if len(seen) <= NAMED:
        return np.arange(len(seen))
    unseen = np.flatnonzero(~seen)
    return unseen if len(unseen) <= NAMED else unseen[:0]


def _short(name: str) -> str:
    # A dollar sign would start a formula.
    text = str(name).replace("_", " ").replace("$", r"\$")
    return text if len(text) <= 24 else text[:23] + "…"


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.grid(True, color="#E4E4E4", lw=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    """PNG of few colours: a third of the size, and the same bytes for the same figure."""
    raw, out = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", dpi=140)
    with Image.open(raw) as image:
        image.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()
