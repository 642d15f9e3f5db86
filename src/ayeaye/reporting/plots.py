"""The pictures of an evaluation, as PNG bytes by name; colours can be told apart by colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# Okabe & Ito (2008).
SEEN, UNSEEN, GOOD, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
NAMED = 60  # more classes than this are drawn without their names
WIDTH = 5.4  # inches, so narrow that the writing can be read on a phone
ROLES = ((True, "seen", SEEN, "o"), (False, "unseen", UNSEEN, "D"))


class Mapped(NamedTuple):
    """A mapper's common space: pictures (n, m), their classes y (n,), and the classes (C, m).

    names (C,), and seen (C,) of these classes, which need not be all there are.
    """

    pictures: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    names: Sequence[str]
    seen: np.ndarray


def draw(
    measured: dict[str, Any],
    names: Sequence[str],
    seen: np.ndarray,
    *,
    vectors: np.ndarray | None = None,
    confused: tuple[Sequence[int], np.ndarray] | None = None,
    reliable: Mapping[str, Any] | None = None,
    mapped: Mapped | None = None,
) -> dict[str, bytes]:
    """Every plot there is something to show for, by file name without its ending.

    `measured` is the result of `metrics.measure` over classes `names` (C,) and `seen` (C,) bool; `vectors`
    (C, k) the class space, `confused` the class indices (m,) and shares (m, m) of `metrics.confusion`,
    `reliable` the results of `metrics.reliability` by side, `seen` and `unseen`, and of both.
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
    if mapped is not None and len(mapped.pictures) and len(mapped.pictures) + len(mapped.classes) > 3:
        drawn["common_space"] = common_space(mapped)
    if reliable is not None and reliable["ece"] is not None:
        drawn["reliability"] = reliability(reliable)
    return drawn


def seen_unseen_curve(measured: dict[str, Any]) -> bytes:
    """U against S over every offset γ, the chosen γ, no offset, and chance."""
    figure, axes = _figure(WIDTH, 4.6)
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
        label=f"chosen γ = {measured['gamma']:.3g}, H {measured['H']:.3f}",
    )
    axes.plot(base["S"], base["U"], "x", ms=8, mew=2, color="black", label="chance")
    axes.set(xlabel="S: accuracy on seen classes", ylabel="U: accuracy on unseen classes")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _legend_above(axes, columns=2)
    return _png(figure)


def per_class_accuracy(measured: dict[str, Any], names: Sequence[str]) -> bytes:
    """Accuracy of each class among all classes, sorted, with its interval; unseen and seen apart."""
    records = [r for r in measured["per_class"] if not r["seen"]] or measured["per_class"]
    groups = [sorted(records, key=lambda r: (r["accuracy"], r["class"]))]
    known = [r for r in measured["per_class"] if r["seen"]]
    if known and known is not records and not records[0]["seen"]:
        groups.append(sorted(known, key=lambda r: (r["accuracy"], r["class"])))
    most = max(len(group) if len(group) <= NAMED else 20 for group in groups)
    height = float(np.clip(1.2 + 0.16 * most, 3.4, 10.5))
    figure, axes = _figure(WIDTH, height, len(groups))
    for axis, group in zip(np.atleast_1d(axes), groups, strict=True):
        _bars(axis, group, names, measured)
    return _png(figure)


def confusion_unseen(names: Sequence[str], shares: np.ndarray) -> bytes:
    """Rows: the true unseen class; columns: the answer among unseen classes; darker is more."""
    side = float(np.clip(2.2 + 0.2 * len(names), 4.2, 8.0))
    figure, axes = _figure(side + 0.6, side)
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
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02, label="share of the class's pictures")
    return _png(figure)


def hubness(measured: dict[str, Any], names: Sequence[str], seen: np.ndarray) -> bytes:
    """N_k of each class over its mean, most frequent first, on the band of a random draw."""
    hubs = measured["hubness"]
    relative = np.array(hubs["relative"], dtype=float)
    order = np.argsort(-relative, kind="stable")
    figure, axes = _figure(WIDTH, 4.2)
    place = np.arange(len(order))
    axes.fill_between(
        place, hubs["null_low"], hubs["null_high"], color=GREY, alpha=0.28, lw=0, label="95 % of random draws"
    )
    axes.axhline(1, color=GREY, lw=1)
    for role, label, colour, marker in ROLES:
        mine = seen[order] == role
        axes.plot(place[mine], relative[order][mine], marker, ms=5, color=colour, label=f"{label} class")
    if len(order) <= NAMED / 2:
        axes.set_xticks(place, [_short(names[c]) for c in order], rotation=90, fontsize=7)
    else:
        above = np.flatnonzero(relative[order] > np.array(hubs["null_high"]))
        _annotate(axes, [names[c] for c in order], np.c_[place, relative[order]], above[:3])
        axes.set_xlabel("classes, most frequent first")
        axes.margins(x=0.12)
    axes.set_ylabel(f"times among the {hubs['k']} nearest ÷ mean")
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
    figure, axes = _figure(WIDTH, 4.8)
    for role, label, colour, marker in ROLES:
        mine = seen == role
        axes.scatter(
            *flat[mine].T,
            c=colour,
            marker=marker,
            s=34,
            alpha=0.85,
            lw=0,
            label=f"{mine.sum()} {label} classes",
        )
    _annotate(axes, names, flat, _named(seen))
    axes.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {shares[1]:.0%}")
    axes.margins(0.1)
    _legend_above(axes, columns=2)
    return _png(figure)


def common_space(mapped: Mapped) -> bytes:
    """Pictures and classes where they are compared, by t-SNE of their cosines (van der Maaten & Hinton 2008).

    A line leads from each picture to its class. Only the unseen classes bear their names.
    """
    flat = plane(np.vstack([mapped.pictures, mapped.classes]))
    pictures, classes = flat[: len(mapped.pictures)], flat[len(mapped.pictures) :]
    figure, axes = _figure(WIDTH, 5.2)
    ends = np.stack([pictures, classes[mapped.y]], axis=1)
    for role, label, colour, marker in ROLES:
        mine, own = mapped.seen[mapped.y] == role, mapped.seen == role
        if mine.any():
            axes.plot(*ends[mine].T, color=colour, lw=0.5, alpha=0.25)
            axes.scatter(*pictures[mine].T, c=colour, s=7, alpha=0.5, lw=0, label=f"{label} pictures")
        look = {"c": colour, "marker": marker, "s": 40, "lw": 0.8, "edgecolors": "black", "zorder": 3}
        axes.scatter(*classes[own].T, **look, label=f"{label} classes")
    _annotate(axes, mapped.names, classes, np.flatnonzero(~mapped.seen)[:NAMED])
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.margins(0.08)
    _legend_above(axes, columns=2)
    return _png(figure)


def plane(rows: np.ndarray) -> np.ndarray:
    """(n, 2) places of rows (n, m), n > 3, such that those of high cosine are near one another; always the same."""
    from sklearn.manifold import TSNE

    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    # Of unit rows the distances rank as the cosines do.
    tsne = TSNE(perplexity=min(10.0, (len(rows) - 1) / 3), init="random", random_state=0, max_iter=500)
    return tsne.fit_transform(unit)


def reliability(reliable: Mapping[str, Any]) -> bytes:
    """Stated confidence against what came true, and how many pictures stand behind each point."""
    figure, axes = _figure(WIDTH, 4.6)
    axes.plot([0, 1], [0, 1], "--", color=GREY, lw=1.2, label="as stated")
    most = max(reliable["pictures"])
    for _, side, colour, marker in ROLES:
        found = reliable.get(side)
        if not found or found["ece"] is None:
            continue
        label = f"{side}: ECE {found['ece']:.3f}"
        axes.plot(found["confidence"], found["accuracy"], color=colour, lw=1.6, label=label)
        sizes = 18 + 180 * np.array(found["pictures"]) / most
        axes.scatter(
            found["confidence"], found["accuracy"], s=sizes, color=colour, marker=marker, alpha=0.8, lw=0
        )
    axes.set(xlabel="stated confidence", ylabel="share that was right", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_title(f"all pictures: ECE {reliable['ece']:.3f}", fontsize=10, loc="left")
    axes.legend(loc="upper left", fontsize=9)
    return _png(figure)


class Compared(NamedTuple):
    """Two classifiers on the same pictures, for a picture of both.

    names of the two; `points` of each with `curve` (`seen` and `unseen`, lists), S, U and AUSUC, of which any may
    be None; `classes`, one record each with `class`, `seen`, `difference` and `interval`, the second less the first;
    chance with S and U; `measured_on` in words.
    """

    names: tuple[str, str]
    points: Sequence[Mapping[str, Any]]
    classes: Sequence[Mapping[str, Any]]
    chance: Mapping[str, float | None]
    measured_on: str


def compared(found: Compared) -> dict[str, bytes]:
    """`curves`, `classes` and both in one picture, `both`; without a curve there is the second alone."""
    shown = _largest(found.classes)
    height = float(np.clip(1.6 + 0.17 * len(shown), 3.4, 11.0))
    drawn: dict[str, bytes] = {}
    if any(point.get("curve") for point in found.points):
        figure, axes = _figure(WIDTH, 4.6)
        _two_curves(axes, found)
        drawn["curves"] = _png(figure)
    figure, axes = _figure(WIDTH, height)
    _differences(axes, found, shown)
    drawn["classes"] = _png(figure)
    if "curves" in drawn:
        figure, axes = _figure(2 * WIDTH, max(height, 4.8), 2)
        _two_curves(axes[0], found)
        _differences(axes[1], found, shown)
        figure.suptitle(found.measured_on, fontsize=9, x=0.01, ha="left")
        drawn["both"] = _png(figure)
    return drawn


def _largest(classes: Sequence[Mapping[str, Any]], most: int = NAMED) -> list[Mapping[str, Any]]:
    """The classes of the largest differences to either side, from the largest gain to the largest loss."""
    largest = sorted(classes, key=lambda r: (-abs(r["difference"]), r["class"]))[:most]
    return sorted(largest, key=lambda r: (-r["difference"], r["class"]))


def _two_curves(axes: Any, found: Compared) -> None:
    for name, point, colour, marker in zip(found.names, found.points, (GREY, GOOD), ("o", "D"), strict=True):
        label = name + (f": AUSUC {point['AUSUC']:.3f}" if point.get("AUSUC") is not None else "")
        if point.get("curve"):
            axes.plot(point["curve"]["seen"], point["curve"]["unseen"], color=colour, lw=2.2, label=label)
        if point.get("S") is not None and point.get("U") is not None:
            h = f"its γ, H {point['H']:.3f}"
            axes.plot(point["S"], point["U"], marker, ms=9, color=colour, mec="white", label=h)
    _lines_of_equal_h(axes)
    if found.chance.get("S") is not None and found.chance.get("U") is not None:
        axes.plot(found.chance["S"], found.chance["U"], "x", ms=8, mew=2, color="black", label="chance")
    axes.set(xlabel="S: accuracy on seen classes", ylabel="U: accuracy on unseen classes")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _legend_above(axes, columns=2)


def _differences(axes: Any, found: Compared, shown: Sequence[Mapping[str, Any]]) -> None:
    place = np.arange(len(shown))[::-1]
    more = np.array([r["difference"] for r in shown])
    low, high = np.array([r["interval"] for r in shown]).T
    for role, label, colour, _ in ROLES:
        mine = np.array([r["seen"] == role for r in shown])
        if mine.any():
            axes.barh(place[mine], more[mine], color=colour, alpha=0.75, height=0.72, label=f"{label} class")
    axes.hlines(place, low, high, color="#222222", lw=1.1)
    axes.axvline(0, color="#222222", lw=1)
    axes.set_yticks(place, [_short(r["class"]) for r in shown], fontsize=8)
    axes.set(ylim=(-0.7, len(shown) - 0.3), xlabel=f"accuracy of {found.names[1]} − {found.names[0]}")
    left = len(found.classes) - len(shown)
    axes.set_title(
        f"{len(shown)} classes, 95 % intervals" + (f"; {left} smaller ones left out" if left else ""),
        fontsize=9.5,
        loc="left",
    )
    axes.legend(fontsize=8.5, loc="lower right")  # gains reach to the right at the top


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
    axes.axvline(mean, color="#222222", lw=1.2, ls="--")
    axes.axvline(measured["baselines"]["S" if seen else "U"], color=GREY, lw=1.2, ls=":")
    axes.set(xlim=(0, 1), ylim=(-0.7, len(records) - 0.3), xlabel="accuracy")
    role = "seen" if seen else "unseen"
    axes.set_title(f"{len(records)} {role} classes\nmean {mean:.3f}", fontsize=9.5, loc="left")


def _lines_of_equal_h(axes: Any) -> None:
    s = np.linspace(0.001, 1, 400)
    for h in (0.2, 0.4, 0.6, 0.8):
        u = np.divide(h * s, 2 * s - h, out=np.full_like(s, np.nan), where=2 * s > h)
        axes.plot(s, np.where(u <= 1, u, np.nan), color=GREY, lw=0.7, alpha=0.6)
        axes.text(1.005, h / (2 - h), f"H {h}", fontsize=7, color=GREY, va="center")


def _annotate(axes: Any, names: Sequence[str], places: np.ndarray, which: Sequence[int] | np.ndarray) -> None:
    """Names beside their places (n, 2), each on the side that has room; one for which no side has is left out."""
    if not len(which):
        return
    low, span = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1e-9)
    points = (places - low) / span * 72 * np.array([0.85 * WIDTH, 4.0])
    taken: list[tuple[float, float, float]] = []
    for i in which:
        text = _short(names[i])
        width = 4.4 * len(text)
        for right, up in ((5, 3), (-5, 3), (5, -9), (-5, -9), (5, 12), (5, -18)):
            left, bottom = points[i] + (right if right > 0 else right - width, up)
            if all(abs(bottom - y) > 8 or left > x + w or x > left + width for x, y, w in taken):
                taken.append((left, bottom, width))
                axes.annotate(
                    text,
                    places[i],
                    xytext=(right, up),
                    textcoords="offset points",
                    ha="left" if right > 0 else "right",
                    fontsize=7.5,
                    color="#333333",
                    zorder=4,
                )
                break


def _legend_above(axes: Any, columns: int) -> None:
    """Where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, fontsize=8.5, frameon=False)


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
    from matplotlib import rcdefaults
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rcdefaults()  # a person's own settings may need what is not installed, such as LaTeX
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
    figure.savefig(raw, format="png", dpi=180)
    with Image.open(raw) as image:
        image.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()
