"""How the demo is told: a timeline, a live line of figures beneath it, a closing table."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from loop.demo.acts import Act
from loop.demo.stage import Stage
from loop.household import Addresses

BARS = "▁▂▃▄▅▆▇█"


class Teller:
    """Prints what happens with the time since the start; a live panel where there is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self.stage: Stage | None = None
        self.doing = "starting"
        self._history: deque[float] = deque(maxlen=60)
        self._stop = threading.Event()
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> Teller:
        if self.console.is_terminal:
            self._live.start()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self.console.is_terminal:
            self._thread.join()
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        elapsed = time.monotonic() - self.began
        line = f"[dim]{elapsed:6.1f} s[/]  " + (
            f"[{style}]{escape(text)}[/]" if style else escape(text)
        )
        self.console.print(line)

    def chapter(self, text: str) -> None:
        self.doing = text
        self.console.print()
        self.say(text, "bold cyan")

    def _refresh(self) -> None:
        while not self._stop.wait(0.25):
            self._live.update(self._panel())

    def _panel(self) -> Panel:
        traffic = self.stage.traffic if self.stage else None
        if traffic is None:
            return Panel(f"{self.doing} …", title="homeostat demo")
        accuracy = traffic.accuracy()
        if accuracy is not None:
            self._history.append(accuracy)
        trend = "".join(BARS[min(7, int(value * 8))] for value in self._history)
        tally = traffic.tally
        shown = "–" if accuracy is None else f"{accuracy:.0%}"
        return Panel(
            f"accuracy {shown} {trend}\n"
            f"{tally.requests} requests, {tally.rows} rows, {tally.labels} labels, "
            f"[{'red' if tally.failures else 'green'}]{len(tally.failures)} failed[/]",
            title=escape(self.doing),
        )


def show_addresses(console: Console, found: Addresses) -> None:
    console.print(f"          server       {found.server}  (API: {found.server}/docs)")
    console.print(f"          status page  {found.console}")
    console.print(f"          MLflow       {found.mlflow}")


def closing_table(acts: Sequence[Act]) -> Table:
    table = Table(title="How it went", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("act", min_width=20)
    for heading in ("told", "time", "accuracy", "version", "failed"):
        table.add_column(heading, no_wrap=True)
    for act in acts:
        table.add_row(
            f"{act.number}. {act.title}\n[dim]{escape(_details(act))}[/]",
            "[green]yes[/]" if act.as_told else "[red]no[/]",
            f"{act.seconds:.0f} s",
            "→".join(
                _percent(value)
                for value in (act.accuracy_before, act.accuracy_during, act.accuracy_after)
                if value is not None
            ),
            act.version_before
            if act.version_before == act.version_after
            else f"{act.version_before}→{act.version_after}",
            f"{act.failed} of {act.requests}",
        )
    return table


def _details(act: Act) -> str:
    verdicts = ", ".join(f"{count} {kind}" for kind, count in act.verdicts.items())
    quarantined = f"; {act.quarantined} rows put aside" if act.quarantined else ""
    missing = f"; not as told: {act.missing}" if act.missing else ""
    gate = f"; gate: {act.gate}" if act.gate else ""
    return f"{act.checks} checks: {verdicts}{quarantined}{gate}{missing}"


def _percent(value: float) -> str:
    return f"{value:.0%}"
