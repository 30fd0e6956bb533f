"""Step 4 of an evaluation: its files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from sfdkit.apply.axes import FILE_NAME as AXES
from sfdkit.evaluate.pictures import draw_sheet, draw_traversal
from sfdkit.evaluate.plan import Plan
from sfdkit.evaluate.probes import make_axes
from sfdkit.evaluate.report.page import About, write_page
from sfdkit.evaluate.run import Row, Run
from sfdkit.evaluate.samples import Sample
from sfdkit.evaluate.summarise import Summary
from sfdkit.files import Value, atomic_write, write_metrics, write_picture
from sfdkit.model.animator import FaceAnimator

_COLUMNS = (("L1", "l1", 9, 4), ("PSNR", "psnr", 9, 2), ("SSIM", "ssim", 9, 4), ("sharpness", "sharpness", 12, 2))
"""Head, name, width and decimals of the columns that are printed."""
FILES = ("report.html", "metrics.json", "pairs.csv", AXES, "sheet.png", "traversal.png")


def write_files(
    folder: Path,
    animator: FaceAnimator,
    shown: Plan,
    sample: Sample,
    run: Run,
    summary: Summary,
    metrics: Mapping[str, Value],
    about: About,
) -> None:
    """Write :data:`FILES`.

    Args:
        folder: Where to.
        animator: In eval mode.
        shown: The pairs of the sheet.
        sample: Its source frame is the face of the traversal.
        run: The rows of pairs.csv.
        summary: What axes.json, the traversal and the report are made of.
        metrics: What metrics.json holds.
        about: What the report says besides.
    """
    codes, findings = summary.codes, summary.findings
    effects = summary.effects.vectors if summary.effects else []
    sheet = draw_sheet(animator, shown.self_pairs, shown.cross_pairs)
    traversal = draw_traversal(animator, sample, codes.motion.std(0, correction=0) * codes.active(), effects)
    write_picture(folder / "sheet.png", sheet)
    write_picture(folder / "traversal.png", traversal)
    write_pairs(folder / "pairs.csv", run.self_pairs.rows, run.cross_pairs.rows)
    make_axes(animator, codes, summary.truth, findings).save(folder / AXES)
    write_metrics(folder / "metrics.json", metrics)
    vectors = findings.motion if findings else []
    write_page(folder / "report.html", metrics, vectors, effects, sheet, traversal, about)


def write_pairs(path: Path, self_rows: Sequence[Row], cross_rows: Sequence[Row]) -> None:
    """Write a csv with one line per pair of self- and of cross-reenactment; it appears whole or not at all."""
    rows = [("self", row) for row in self_rows] + [("cross", row) for row in cross_rows]
    names = sorted({name for _, row in rows for name in row.values})
    groups = sorted({name for _, row in rows for name in row.pair.source.groups})
    head = ["kind", "source", "driver", "source_identity", "driver_identity", *(f"source_{name}" for name in groups)]
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*head, *names])
        for kind, row in rows:
            source, driver = row.pair.source, row.pair.driver
            about = [kind, source.clip["key"], driver.clip["key"], source.identity, driver.identity]
            about += [source.groups.get(name, "") for name in groups]
            figures = [f"{row.values[name]:.6g}" if name in row.values else "" for name in names]
            table.writerow([*about, *figures])


def distance_table(metrics: Mapping[str, Value], names: Sequence[tuple[str, str]]) -> str:
    """Lay L1, PSNR, SSIM and sharpness out as a table.

    Args:
        metrics: Key to figure.
        names: Per line the words to print and the prefix of its keys: ``("cross", "cross/")`` reads ``cross/l1`` and
            so on. Lines without figures are left out.

    Returns:
        The table's lines.
    """
    there = [(words, prefix) for words, prefix in names if f"{prefix}l1" in metrics]
    width = max((len(words) for words, _ in there), default=0)
    lines = [" " * width + "".join(f"{head:>{size}}" for head, _, size, _ in _COLUMNS)]
    for words, prefix in there:
        cells = [(metrics.get(prefix + name), size, digits) for _, name, size, digits in _COLUMNS]
        row = "".join(f"{'' if value is None else f'{value:.{digits}f}':>{size}}" for value, size, digits in cells)
        lines.append(f"{words:<{width}}{row}".rstrip())
    return "\n".join(lines)
