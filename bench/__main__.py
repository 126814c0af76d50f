"""`python -m bench SUBJECT [--quick] [--record] [--json FILE]`, from the repository's root."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.machine import describe, stolen
from bench.options import QUICK, Options, Steps
from bench.results import RESULTS, Report, record, show, write_json

SUBJECTS = (
    "serving",
    "serving_rates",
    "serving_pyfunc",
    "score",
    "gpu",
    "serving_binary",
    "serving_heavy",
    "serving_grpc",
    "http_stack",
    "check",
    "startup",
    "soak",
    "journal_overhead",
    "journal_faults",
    "journal_kills",
    "journal_append",
    "journal_reading",
    "journal_labels",
)
BUSY = 0.3  # of each core, before we began
STOLEN = 0.01  # of all cores, meanwhile


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--quick", action="store_true", help="see that it works, in a minute")
    parser.add_argument("--record", action="store_true", help=f"write it into {RESULTS.name}")
    parser.add_argument("--json", type=Path, help="write every measurement into this file")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default: 3)")
    parser.add_argument("--seconds", type=float, help="of load, a figure (default: 6)")
    chosen = parser.parse_args(arguments)
    if chosen.quick and chosen.record:
        parser.error("--quick measures nothing worth recording")
    options = QUICK if chosen.quick else Options()
    given = {name: getattr(chosen, name) for name in ("rounds", "seconds")}
    options = replace(options, **{name: value for name, value in given.items() if value})
    console = Console()
    report = _run(chosen.subject, options, arguments, console)
    show(report, console)
    if chosen.json:
        write_json(report, chosen.json)
    if report.machine.load_before > BUSY:
        console.print(
            f"The machine was busy when this began (load {report.machine.load_before:g} a core): "
            "measure again when it is quiet.",
            style="yellow",
        )
    if report.stolen > STOLEN:
        console.print(
            f"The host gave {report.stolen:.0%} of the processors' time to others meanwhile: "
            "measure again when it is quiet.",
            style="yellow",
        )
    if chosen.record:
        record(report)
        console.print(f"written into bench/{RESULTS.name}")
    for aim in report.findings.missed:
        console.print(f"What we ask of ourselves does not hold: {aim}", style="red", markup=False)
    return 1 if report.findings.missed else 0


def _run(name: str, options: Options, arguments: Sequence[str], console: Console) -> Report:
    subject = import_module(f"bench.{name}")
    machine = describe(subject.PACKAGES, subject.others())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    began, gone = time.perf_counter(), stolen()
    with (
        tempfile.TemporaryDirectory(prefix="homeostat-bench-") as folder,
        Progress(*columns, console=console) as progress,
    ):
        findings = subject.run(options, Steps(progress), Path(folder))
    seconds = time.perf_counter() - began
    return Report(
        subject=name,
        command=f"python -m bench {shlex.join(arguments)}",
        machine=machine,
        seconds=seconds,
        stolen=(stolen() - gone) / (seconds * (os.cpu_count() or 1)),
        findings=findings,
    )


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    sys.exit(main(sys.argv[1:]))
