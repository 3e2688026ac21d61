"""Makes the tables of `tables/` with `captum-sgcampp evaluate`, one command for each.

    export SGCAMPP_ASSETS=/path/to/assets
    python run_all.py --list                     # the tables, and about how long they take on a quiet machine
    python run_all.py                            # all of them
    python run_all.py --only mobilenet_v2-last   # those whose names begin so

A stopped run goes on with the same command. Two processes at a time share the work (`--workers`).
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import table_pictures as pictures
from table_list import TABLES, Table

HERE = Path(__file__).resolve().parent
RESULTS = ("table.md", "summary.csv")
SECOND_REFERENCE = "grad-cam++"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = parsed(arguments)
    chosen = [table for table in TABLES if any(table.name.startswith(start) for start in options.only)]
    if not chosen:
        raise SystemExit(f"--only: expected the beginning of one of {', '.join(t.name for t in TABLES)}")
    if options.list:
        print(plan(chosen, options.workers))
        return
    for table in chosen:
        run(table, options)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", default=[""], metavar="NAME", help="tables whose names begin so (default: all)")
    add("--list", action="store_true", help="print the plan and end")
    add("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    add("--limit", type=int, metavar="N", help="only the first images of each table, to try it out")
    add("--work", type=Path, default=Path("build/tables"), metavar="FOLDER", help="unfinished runs")
    add("--out", type=Path, default=HERE / "tables", metavar="FOLDER", help="finished tables")
    return parser.parse_args(arguments)


def plan(tables: list[Table], workers: int) -> str:
    """A line per table, and how long all take."""
    lines = [
        f"{table.name}: {table.images} images, {table.seconds:g} s each, {table.minutes:.0f} min" for table in tables
    ]
    total = sum(table.minutes for table in tables)
    return "\n".join([*lines, f"together {total / workers / 60:.1f} h in {workers} processes of one thread"])


def run(table: Table, options: argparse.Namespace) -> None:
    """Measures what is missing of one table, and copies the results."""
    work, out = options.work / table.name, options.out / table.name
    command = [*table.command(prepared(table, options.work)), "--workers", str(options.workers), "--threads", "1"]
    if options.limit:
        command += ["--scenes" if table.pictures == "scenes" else "--limit", str(options.limit)]
    for reference in (SECOND_REFERENCE, table.methods[0]):
        whole = [*command, "--reference", reference, "--out", str(work)]
        print(shlex.join(whole), flush=True)
        subprocess.run([sys.executable, "-m", *whole], check=True, stdout=subprocess.DEVNULL)
        out.mkdir(parents=True, exist_ok=True)
        for name in RESULTS:
            shutil.copy(work / name, out / named(name, reference, table))


def named(name: str, reference: str, table: Table) -> str:
    """The name of a result; the table against the second reference says so."""
    path = Path(name)
    return name if reference == table.methods[0] else f"{path.stem}-against-{reference}{path.suffix}"


def prepared(table: Table, work: Path) -> list[str]:
    """The pictures as arguments of `evaluate`, gathered at the first run."""
    return [str(part) for part in pictures.arguments(table.pictures, table.network, work)]


if __name__ == "__main__":
    main()
