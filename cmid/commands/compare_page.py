"""The page of a comparison: the table, the curves, and what each backbone calls alike, side by side."""

from collections.abc import Mapping
from pathlib import Path

from cmid.commands.compare_plan import Cell
from cmid.commands.compare_tables import AGAIN, Table
from cmid.commands.looking import choose
from cmid.commands.report import looker_of, read_run
from cmid.commands.sources import open_labelled_whole, shown_bands
from cmid.config import CompareConfig, as_plain
from cmid.errors import CmidError
from cmid.report.comparison import Curve, curves_section, differences_section, side_by_side, table_section
from cmid.report.curves import read_table
from cmid.report.markup import Markup
from cmid.report.page import Absent, Header, Section, render
from cmid.train import RunDirectory
from cmid.whole_files import write_whole

QUERIES, PAINTED = 4, 2
ALBUM = 400
"""Labelled images that neighbours are looked for among."""


def write_page(out: Path, table: Table, config: CompareConfig, cells: Mapping[str, Mapping[int, Cell]]) -> Path:
    """Writes `report.html` in `out`; raises `CmidError` where it cannot be written.

    Args:
        out: the comparison's folder.
        table: its rows, figures and notes.
        config: of the comparison.
        cells: label to seed to run, of what was trained here.
    """
    titles = {line.label: line.title for line in table.lines}
    sections: list[Section | Absent] = [
        table_section(table.lines, table.figures, table.probes, table.notes),
        differences_section(table.lines, table.figures, table.probes, table.reference),
        curves_section([_curve(titles[label], runs) for label, runs in cells.items()]),
        *_looked(config, titles, cells),
    ]
    facts = [
        ("images", config.data or "none"),
        ("scored on", config.labelled),
        ("methods", f"{len(cells)}"),
        ("seeds", ", ".join(map(str, config.seeds))),
    ]
    header = Header(
        title=out.resolve().name, facts=facts, warnings=table.warnings, settings=as_plain(config), kicker="Comparison"
    )
    page = render(header, sections)
    return write_whole(
        out / "report.html", lambda part: part.write_text(page, encoding="utf-8", errors="replace"), advice=AGAIN
    )


def _curve(title: str, runs: Mapping[int, Cell]) -> Curve:
    """The tables of a row's first run."""
    files = RunDirectory(next(iter(runs.values())).folder)
    return Curve(title, read_table(files.steps), read_table(files.metrics))


def _looked(
    config: CompareConfig, titles: Mapping[str, str], cells: Mapping[str, Mapping[int, Cell]]
) -> list[Section | Absent]:
    """Neighbours and reconstructions of the first run of each row, of the same images."""
    neighbours: list[tuple[str, Markup]] = []
    painted: list[tuple[str, Markup]] = []
    for label, runs in cells.items():
        cell = next(iter(runs.values()))
        try:
            run = read_run(cell.folder)
            looker = looker_of(run)
            if looker is None:
                continue
            album = choose(
                open_labelled_whole(config.labelled, run.settings),
                ALBUM,
                0,
                run.settings.views.size,
                shown_bands(run.settings.views.bands),
            )
            found = looker.neighbour_and_map_sections(album, QUERIES, "pca")[0]
            neighbours += [(titles[label], found.body)] if isinstance(found, Section) else []
            painting = looker.painted_section(album, PAINTED)
            painted += [(titles[label], painting.body)] if isinstance(painting, Section) else []
        except CmidError:
            continue  # a run that diverged before its first checkpoint has nothing to show
    return [
        side_by_side(
            "neighbours",
            "Nearest neighbours",
            "The same framed images for every method, each followed by what its features call most alike; a tick marks "
            "the same class.",
            neighbours,
        ),
        side_by_side(
            "reconstructions",
            "Reconstructions",
            "What the methods that paint hidden pixels make of the same images.",
            painted,
        ),
    ]
