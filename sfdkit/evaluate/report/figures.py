"""Sections of the report about results: distances, following, identity, groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from sfdkit.evaluate.reenact import READABLE
from sfdkit.evaluate.report.html import (
    digits_of,
    heading_of,
    make_table,
    make_tile,
    names_under,
    number_of,
    plain_text,
    show,
    small_class,
    words_of,
)
from sfdkit.evaluate.rows import COMPARED, SMALL
from sfdkit.files import Value

_ROWS = (
    ("Self-reenactment", "self/", False),
    ("source unchanged", "self/copy_", True),
    ("Cross-reenactment", "cross/", False),
    ("source unchanged", "copy/", True),
)


_PIXELS = (
    ("L1 ↓", "l1", 4),
    ("PSNR ↑", "psnr", 2),
    ("SSIM ↑", "ssim", 3),
    ("MS-SSIM ↑", "ms_ssim", 3),
    ("FID ↓", "fid", 2),
    ("KID ↓", "kid", 4),
    ("LPIPS ↓", "lpips", 3),
    ("face L1 ↓", "face_l1", 4),
    ("face PSNR ↑", "face_psnr", 2),
    ("face SSIM ↑", "face_ssim", 3),
)


_READ = (
    ("landmarks, px ↓", "landmark_error", 2),
    ("pose, ° ↓", "pose_error", 2),
    ("yaw", "yaw_error", 2),
    ("pitch", "pitch_error", 2),
    ("roll", "roll_error", 2),
    ("rotation, ° ↓", "rotation_error", 2),
    ("eyes open ↓", "eye_openness_error", 3),
    ("mouth open ↓", "mouth_openness_error", 3),
    ("AED ↓", "aed", 3),
    ("expression ↓", "expression_error", 3),
)


def headline_section(m: Mapping[str, Value]) -> str:
    """Return the tiles at the top."""
    tiles = []
    for prefix, copy, words in (("self/", "self/copy_", "self-reenactment"), ("cross/", "copy/", "cross-reenactment")):
        psnr, still = number_of(m, f"{prefix}psnr"), number_of(m, f"{copy}psnr")
        if psnr is not None:
            text = f"{words}; the source unchanged gives {show(still, 2)} dB"
            tiles.append(make_tile(f"{show(psnr, 2)} <small>dB</small>", text))
    if (face := number_of(m, "cross/face_psnr")) is not None:
        text = f"cross, inside the face; unchanged {show(number_of(m, 'copy/face_psnr'), 2)} dB"
        tiles.append(make_tile(f"{show(face, 2)} <small>dB</small>", text))
    if (follow := number_of(m, "cross/follow_mean")) is not None:
        tiles.append(make_tile(show(follow, 2), "of 1: how well pose and expression follow the driver"))
    if (leak := number_of(m, "cross/leakage")) is not None:
        tiles.append(make_tile(show(leak, 3), "leakage: nearer to the driver's identity than it should be"))
    for key, words in (
        ("effect", "are moved by a basis vector of their own"),
        ("dci", "have a vector that reads them"),
    ):
        if (own := number_of(m, f"{key}/own_vectors")) is not None:
            total = show(number_of(m, f"{key}/factors"), 0)
            tiles.append(make_tile(f"{own:.0f} <small>of {total}</small>", f"motion factors {words}"))
    about = (
        f"{m.get('evaluation/clips')} clips drive themselves, {m.get('evaluation/pairs')} cross pairs have a true "
        f"answer, {m.get('evaluation/driven_frames')} driven frames, protocol {m.get('evaluation/protocol')}; data set "
        f"{m.get('evaluation/dataset')}, split "
        f"{m.get('evaluation/split')}, {m.get('evaluation/resolution')} pixels."
    )
    return (
        f'<header><h1>What this animator is worth</h1><p class="lead">{escape(about)}</p></header>\n'
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


def distance_section(m: Mapping[str, Value], networks: Mapping[str, Value]) -> str:
    """Return the tables of distances and errors."""
    columns = [c for c in _PIXELS if any(number_of(m, prefix + c[1]) is not None for _, prefix, _ in _ROWS)]
    html = [
        "<h2>How far results are from the answer</h2>",
        "<p>In self-reenactment a clip drives its own first frame, and the driving frame is the answer. In "
        "cross-reenactment another person drives; of puppets the answer is rendered. The source unchanged, against the "
        "same answer, is what doing nothing gives.</p>",
        _metric_table(m, _ROWS, columns),
        '<p class="note">On [0, 1]; mean over the frames of a clip, then over clips or pairs. '
        "<i>face</i>: inside the face's mask. "
        "LPIPS, where given: AlexNet, inputs in [-1, 1].</p>",
    ]
    read = [c for c in _READ if any(number_of(m, prefix + c[1]) is not None for _, prefix, _ in _ROWS)]
    if read:
        rows = (*_ROWS, ("the network itself", "measure/floor_", True))
        html += [
            "<h3>Read by a network in result and answer</h3>",
            _metric_table(m, rows, read),
            '<p class="note">Landmarks: mean absolute error per coordinate (as AKD) in pixels of these pictures. Pose: '
            "mean absolute error over yaw, pitch and roll. Expression: mean absolute error over "
            f"{escape(', '.join(_factors(m, 'cross/', '_error')) or 'all values')}. Both pictures are read by the same "
            "network, so that its bias cancels; <i>the network itself</i> is its error on frames with known factors. "
            "Real faces have no answer in cross-reenactment: pose and expression are compared with the driver's.</p>",
        ]
    if networks:
        html.append(_networks(networks))
    return "\n".join(html)


def _networks(networks: Mapping[str, Value]) -> str:
    """Say which networks measured, and lay out how well they read faces held out of their training."""
    names = {key.split("/")[-1]: value for key, value in networks.items()}
    plain = {name: value for name, value in names.items() if not isinstance(value, float)}
    columns = [("", ""), ("r2_", "R²"), ("soft_", "blurred"), ("soft_r2_", "R², blurred")]
    what = [n for n in names if n not in plain and not n.startswith(("r2_", "soft_"))]
    lines = []
    for name in what:
        cells = "".join(f"<td>{plain_text(names[p + name]) if p + name in names else ''}</td>" for p, _ in columns)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    about = ", ".join(f"{words_of(name)} {plain_text(value)}" for name, value in plain.items())
    html = f"<h3>About the network</h3>\n<p>{escape(about)}."
    if not lines:
        return html + "</p>"
    return (
        f"{html} On faces held out of its training, as they are and blurred as results may be (landmarks: mean "
        "distance at 64 pixels; then degrees, and units of the factor):</p>\n"
        + make_table(["", "as they are", *(words for _, words in columns[1:])], lines)
    )


def _factors(m: Mapping[str, Value], prefix: str, suffix: str) -> list[str]:
    """Return the names of expression factors."""
    known = ("landmark", "pose", "yaw", "pitch", "roll", "expression", "rotation", "eye_openness", "mouth_openness")
    names = [k.removeprefix(prefix).removesuffix(suffix) for k in m if k.startswith(prefix) and k.endswith(suffix)]
    return [name for name in names if name not in known and "/" not in name]


def _metric_table(
    m: Mapping[str, Value], rows: Iterable[tuple[str, str, bool]], columns: Sequence[tuple[str, str, int]]
) -> str:
    lines = []
    for words, prefix, still in rows:
        cells = [number_of(m, prefix + key) for _, key, _ in columns]
        if any(cell is not None for cell in cells):
            shown = "".join(f"<td>{show(v, c[2])}</td>" for v, c in zip(cells, columns, strict=True))
            kind = ' class="still"' if still else ""
            lines.append(f"<tr{kind}><td>{escape(words)}</td>{shown}</tr>")
    return make_table(["", *(c[0] for c in columns)], lines)


def follow_section(m: Mapping[str, Value]) -> str:
    """Return how well results follow the driver."""
    prefix, still = ("cross/", "copy/") if names_under(m, "cross/follow_") else ("self/", "self/copy_")
    names = names_under(m, f"{prefix}follow_")
    if not names:
        return ""
    bars = [(n, number_of(m, f"{prefix}follow_{n}"), number_of(m, f"{still}follow_{n}"), _blind(m, n)) for n in names]
    blind = [n for n in names if _blind(m, n)]
    warning = (
        f'\n<p class="note">Pale: the network itself hardly reads {escape(", ".join(blind))} (its reading correlates '
        f"below {READABLE:g} with the known factor), so these bars say little, and the mean leaves them out.</p>"
        if blind
        else ""
    )
    return (
        "<h2>Does the face follow?</h2>\n<p>Correlation, over all frames of all pairs, between what a network reads in "
        "the result and in the answer: 1 is a face that does as the driver does, 0 one that does as it likes. The grey "
        "mark is the unchanged source.</p>\n" + _bars(bars) + warning
    )


def _blind(m: Mapping[str, Value], name: str) -> bool:
    reads = number_of(m, f"measure/reads_{name}")
    return reads is not None and reads < READABLE


def _bars(bars: Sequence[tuple[str, float | None, float | None, bool]]) -> str:
    """Draw one bar per factor from 0 to at most 1, with a mark for the unchanged source; pale where that is True."""
    left, width, line = 120, 560, 24
    low = -0.25 if any(value is not None and value < 0 for _, *both, _ in bars for value in both) else 0.0

    def place(value: float) -> float:
        return left + width * (min(max(value, low), 1.0) - low) / (1.0 - low)

    height = line * len(bars) + 26
    parts = [f'<svg viewBox="0 0 {left + width + 70} {height}" width="{left + width + 70}" role="img">']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = place(tick)
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height - 22}" stroke="#dfe3e8"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle" fill="#5b6675">{tick:g}</text>')
    for row, (name, value, still, pale) in enumerate(bars):
        y = row * line + 4
        parts.append(f'<text x="0" y="{y + 13}" fill="#1d2430">{escape(name)}</text>')
        if value is not None:
            x, zero = place(value), place(0.0)
            colour = "#0f766e" if value >= 0 else "#b45309"
            faint = ' fill-opacity="0.3"' if pale else ""
            parts.append(
                f'<rect x="{min(x, zero):.1f}" y="{y}" width="{max(abs(x - zero), 1):.1f}" height="16" rx="2" '
                f'fill="{colour}"{faint}/>'
            )
        if still is not None:
            parts.append(f'<rect x="{place(still) - 1.5:.1f}" y="{y - 2}" width="3" height="20" fill="#9aa5b1"/>')
        text = "does not vary" if value is None else show(value, 2)
        parts.append(f'<text x="{left + width + 12}" y="{y + 13}" fill="#1d2430">{text}</text>')
    return "".join(parts) + "</svg>"


def identity_section(m: Mapping[str, Value]) -> str:
    """Return who is seen in results."""
    rows = (
        ("Result", "cross/", False),
        ("true picture", "truth/", True),
        ("source unchanged", "copy/", True),
    )
    figures = []
    for words, prefix, still in rows:
        source, driver = number_of(m, f"{prefix}csim_source"), number_of(m, f"{prefix}csim_driver")
        if prefix == "copy/" and driver is not None:
            source = 1.0
        if source is not None and driver is not None:
            cells = "".join(f"<td>{show(v, 3)}</td>" for v in (source, driver, source - driver))
            kind = ' class="still"' if still else ""
            figures.append(f"<tr{kind}><td>{words}</td>{cells}</tr>")
    html = ["<h2>Whose face is it?</h2>"]
    if figures:
        html += [
            "<p>Cosine of face embeddings in cross-reenactment. A result should be as near to the source, and as far "
            f"from the driver, as the true picture is. <b>Leakage {show(number_of(m, 'cross/leakage'), 3)}</b> is how "
            "much smaller the result's gap is; 0 is none. (On real faces the unchanged source stands in for the true "
            "picture.)</p>",
            make_table(["cosine of embeddings", "with the source ↑", "with the driver ↓", "gap ↑"], figures),
        ]
    if (own := number_of(m, "self/csim")) is not None:
        copy = show(number_of(m, "self/copy_csim"), 3)
        html.append(f"<p>Self-reenactment, with the answer: {show(own, 3)} (source unchanged {copy}).</p>")
    return "\n".join(html) if len(html) > 1 else ""


def group_section(m: Mapping[str, Value], groups: Sequence[str]) -> str:
    """Return results by group."""
    if not groups:
        return ""
    html = [
        "<h2>For whom it works</h2>",
        "<p>The same figures by group of the source, and how far the best and the worst group lie apart. Figures of "
        f"fewer than {SMALL} pairs are marked: they say little.</p>",
    ]
    columns = [key for key in COMPARED if any(k.endswith("/" + key.replace("/", "_")) for k in m)]
    head = ["", "clips", "pairs", *(heading_of(key) for key in columns)]
    lines = []
    for group in groups:
        place = f"groups/{group}/"
        lines.append(f'<tr class="group"><td colspan="{len(head)}">{escape(group)}</td></tr>')
        names = [k.removeprefix(place).removesuffix("/self_pairs") for k in m if k.startswith(place)]
        for name in dict.fromkeys(n for n in names if f"{place}{n}/self_pairs" in m):
            counts = {kind: number_of(m, f"{place}{name}/{kind}_pairs") or 0 for kind in ("self", "cross")}
            cells = [f"<td{small_class(counts[kind])}>{counts[kind]:.0f}</td>" for kind in counts]
            for key in columns:
                figure = number_of(m, f"{place}{name}/{key.replace('/', '_')}")
                small = small_class(counts[key.split("/")[0]]) if figure is not None else ""
                cells.append(f"<td{small}>{show(figure, digits_of(key))}</td>")
            lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
        gaps = [show(number_of(m, f"{place}gap_{k.replace('/', '_')}"), digits_of(k)) for k in columns]
        lines.append(f'<tr class="still"><td>gap</td><td></td><td></td>{"".join(f"<td>{g}</td>" for g in gaps)}</tr>')
    html.append(make_table(head, lines, "tight"))
    html.append(f'<p class="note"><span class="small">Orange</span>: fewer than {SMALL} pairs.</p>')
    return "\n".join(html)
