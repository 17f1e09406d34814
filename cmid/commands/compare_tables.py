"""The figures of a comparison as CSV, one a line, and as a Markdown table."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cmid.commands.compare_scores import few_name, knn_name, probe_names
from cmid.config import CompareConfig
from cmid.evaluation.comparison import Figure, figure
from cmid.report.comparison import full_name, no_differences
from cmid.train.collapse import LEAST_RANK
from cmid.whole_files import write_whole

EXTERNAL, TRAINED = "external", "trained here"
AGAIN = "Make room, and run the same again."


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        label: as the user wrote it.
        title: for people.
        kind: trained here, external, or not trained.
        outcomes: seed to probe to `(M,)` float, the share of draws in which each test image was right.
        effective_rank: of the test images' features, by seed.
        images_per_s: median while training; NaN where it was not trained here.
        peak_memory_gb: of the training process, likewise.
        diverged: seed to reason, of the runs whose loss became infinite or NaN.
        backbone: which.
        precisions: those that features were computed in.
    """

    label: str
    title: str
    kind: str
    outcomes: Mapping[int, Mapping[str, np.ndarray]]
    effective_rank: Mapping[int, float]
    images_per_s: float = math.nan
    peak_memory_gb: float = math.nan
    diverged: Mapping[int, str] = field(default_factory=dict)
    backbone: str = ""
    precisions: frozenset[str] = frozenset()

    def of(self, probe: str) -> dict[int, np.ndarray]:
        """Outcomes of one probe by seed; empty where no run has it."""
        return {seed: each[probe] for seed, each in self.outcomes.items() if probe in each}


def figures_of(lines: Sequence[Line], reference: str, config: CompareConfig) -> dict[tuple[str, str], Figure]:
    """(label, probe) to its figure, of the probes that a row has."""
    by_label = {line.label: line for line in lines}
    found = {}
    for line in lines:
        for probe in probe_names(config):
            own, other = line.of(probe), by_label[reference].of(probe)
            if own:
                against = other if other and line.label != reference else None
                paired = EXTERNAL not in (line.kind, by_label[reference].kind)  # others' runs have no seed of ours
                found[line.label, probe] = figure(own, against, config.bootstrap, paired=paired)
    return found


@dataclass(frozen=True)
class Table:
    """What the tables and the page show.

    Attributes:
        lines: the rows.
        figures: (label, probe) to its figure, of the probes that a row has.
        reference: label of the row that differences are taken to.
        probes: those of which there is a figure, in order.
        warnings: runs that are not to be trusted, one sentence or more each.
        notes: what is to be known of the figures.
    """

    lines: Sequence[Line]
    figures: Mapping[tuple[str, str], Figure]
    reference: str
    probes: Sequence[str]
    warnings: Sequence[str]
    notes: Sequence[str]


def table_of(lines: Sequence[Line], reference: str, config: CompareConfig, budget: str) -> Table:
    """All that is computed of the rows, and said of them; `budget` is what they were given, in words."""
    figures = figures_of(lines, reference, config)
    probes = [p for p in probe_names(config) if any((line.label, p) in figures for line in lines)]
    notes = _notes(lines, figures, reference, config, probes)
    return Table(lines, figures, reference, probes, _warnings(lines), [f"Budget: {budget}.", *notes])


def _warnings(lines: Sequence[Line]) -> list[str]:
    diverged = (
        f"{line.title}, seed {seed}: diverged and is not in its row's figures. {why}"
        for line in lines
        for seed, why in line.diverged.items()
    )
    collapsed = (
        f"{line.title}, seed {seed}: collapsed, with an effective rank of {rank:.1f}. Different images have nearly the "
        "same features, and its figures say little of the method; a lower rate, a longer warm-up or a larger batch may "
        "help."
        for line in lines
        if line.kind == TRAINED
        for seed, rank in line.effective_rank.items()
        if rank < LEAST_RANK
    )
    return [*diverged, *collapsed]


def _notes(
    lines: Sequence[Line],
    figures: Mapping[tuple[str, str], Figure],
    reference: str,
    config: CompareConfig,
    probes: Sequence[str],
) -> list[str]:
    notes = [
        "Accuracy in percent on the test images with the 95 % bootstrap interval over them, mean over runs; ± is the "
        "standard deviation between runs. Differences are taken image by image, in points.",
        f"{knn_name(config)}: cosine, majority of {config.k} neighbours. linear: logistic regression, its C chosen on "
        f"a part of train. Few labels: C = 1, mean of {config.draws} draws, the same for all.",
    ]
    if probes:  # else nothing was scored
        missing = [few_name(count) for count in config.labels if few_name(count) not in probes]
        notes += [f"Left out, since a class has fewer training images: {p}." for p in missing]
    notes += _seeds_of_differences(lines, figures, reference)
    if len(lines) > 1 and (reason := no_differences(lines, reference)):
        notes.append(f"No differences. {reason}")
    if len(precisions := sorted(frozenset().union(*(line.precisions for line in lines)))) > 1:
        of_each = (f"{p} ({', '.join(line.title for line in lines if p in line.precisions)})" for p in precisions)
        notes.append(f"Features come from machines that computed them in {' and in '.join(of_each)}.")
    if any(line.kind == EXTERNAL for line in lines):
        notes.append(
            "External backbones (marked) were trained elsewhere, on other data and with another budget; where methods "
            "were trained here, they see the test images at the first one's size."
        )
    return notes


def _seeds_of_differences(
    lines: Sequence[Line], figures: Mapping[tuple[str, str], Figure], reference: str
) -> list[str]:
    """Which runs differences rest on, where that is not all runs of both rows, seed by seed."""
    to = next(line for line in lines if line.label == reference)
    rows: dict[tuple[int, ...], list[str]] = {}
    for line in lines:
        f = next((each for (label, _), each in figures.items() if label == line.label), None)  # the probes are alike
        if f is None or f.difference is None or EXTERNAL in (line.kind, to.kind):
            continue
        if len(f.shared) < max(len(line.outcomes), len(to.outcomes)):
            rows.setdefault(f.shared, []).append(full_name(line))
    return [
        f"The difference rests on the runs of seed {', '.join(map(str, seeds))} alone, which both rows have: "
        f"{'; '.join(names)}."
        if seeds
        else f"The difference is between all runs of each row, since they have no seed in common: {'; '.join(names)}."
        for seeds, names in rows.items()
    ]


def write_tables(out: Path, table: Table) -> tuple[Path, Path]:
    """`compare.csv` and `compare.md` in `out`; raises `CmidError` where they cannot be written."""
    rows = _csv_rows(table.lines, table.figures)
    text = _markdown(table)
    sheet, page = out / "compare.csv", out / "compare.md"

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    write_whole(sheet, write, advice=AGAIN)
    write_whole(page, lambda part: part.write_text(text, encoding="utf-8"), advice=AGAIN)
    return sheet, page


def _csv_rows(lines: Sequence[Line], found: Mapping[tuple[str, str], Figure]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []

    def add(line: Line, probe: str, seed: object, value: float, f: Figure | None = None) -> None:
        d = f.difference if f else None
        rows.append(
            {
                "method": line.label,
                "kind": line.kind,
                "backbone": line.backbone,
                "measure": probe,
                "seed": seed,
                "value": _number(value),
                "low": _number(f.low if f else math.nan),
                "high": _number(f.high if f else math.nan),
                "runs": f.runs if f else 1,
                "spread_between_runs": _number(f.spread if f else math.nan),
                "difference": _number(d.value if d else math.nan),
                "difference_low": _number(d.low if d else math.nan),
                "difference_high": _number(d.high if d else math.nan),
                "difference_runs": f.difference_runs if f and d else "",
            }
        )

    for line in lines:
        for (label, probe), each in found.items():
            if label == line.label:
                add(line, probe, "all", each.value, each)
                for seed, right in line.of(probe).items():
                    add(line, probe, seed, 100 * float(right.mean()))
        for seed, rank in line.effective_rank.items():
            add(line, "effective rank", seed, rank)
        for measure, value in (("images/s", line.images_per_s), ("peak memory GB", line.peak_memory_gb)):
            if not math.isnan(value):
                add(line, measure, "all", value)
        for seed in line.diverged:
            add(line, "diverged", seed, math.nan)
    return rows


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _markdown(table: Table) -> str:
    lines, found, probes = table.lines, table.figures, table.probes
    head = ["method", "runs", *probes, "effective rank", "images/s", "peak GB"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for line in lines:
        runs = f"{len(line.outcomes)}" + (f", {len(line.diverged)} diverged" if line.diverged else "")
        cells = [_accuracy(found.get((line.label, probe))) for probe in probes]
        rank = f"{np.mean(list(line.effective_rank.values())):.1f}" if line.effective_rank else ""
        rows.append([full_name(line), runs, *cells, rank, _short(line.images_per_s), _short(line.peak_memory_gb)])
    parts = [rows]
    if no_differences(lines, table.reference) is None:
        to = next(line for line in lines if line.label == table.reference)
        parts.append([["difference to " + full_name(to), *probes], ["---"] + ["---:"] * len(probes)])
        for line in lines:
            if line is not to:
                parts[1].append([full_name(line), *(_difference(found.get((line.label, p))) for p in probes)])
    tables = ["\n".join("| " + " | ".join(row) + " |" for row in each) for each in parts]
    return "\n\n".join([*tables, *table.notes, *table.warnings]) + "\n"


def _accuracy(f: Figure | None) -> str:
    if f is None:
        return ""
    spread = "" if math.isnan(f.spread) else f" ± {f.spread:.1f}"
    return f"{f.value:.1f}{spread} ({f.low:.1f} to {f.high:.1f})"


def _difference(f: Figure | None) -> str:
    if f is None or f.difference is None:
        return ""
    d = f.difference
    return f"{d.value:+.1f} ({d.low:+.1f} to {d.high:+.1f})"


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
