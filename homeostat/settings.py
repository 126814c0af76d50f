"""homeostat.toml and the environment -> typed, frozen settings. What each key means stands in
settings_of_serving.py and settings_of_the_loop.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from homeostat.records import Mode
from homeostat.settings_checks import check
from homeostat.settings_of_serving import JournalSettings, ModelSettings, ServingSettings
from homeostat.settings_of_the_loop import (
    AlertSettings,
    AuthSettings,
    ConsoleSettings,
    GateSettings,
    MonitorSettings,
    RegistrySettings,
    RetrainSettings,
    ScoreSettings,
    StateSettings,
)
from homeostat.settings_reader import read

FILE_NAME = "homeostat.toml"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """homeostat.toml."""

    model: ModelSettings
    mode: Annotated[Mode, "how far the loop goes by itself"] = Mode.ACT
    home: Annotated[Path, "folder of everything the platform keeps"] = Path(".homeostat")
    serving: ServingSettings = field(default_factory=ServingSettings)
    journal: JournalSettings = field(default_factory=JournalSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    state: StateSettings = field(default_factory=StateSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    alerts: tuple[AlertSettings, ...] = ()
    score: tuple[ScoreSettings, ...] = ()
    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    project: Annotated[Path, "folder of the file; not a key"] = Path()

    # Where things lie, so that no room spells a path of another's.

    @property
    def journal_path(self) -> str:
        place = self.journal.path
        if place is None:
            return str(self.home / "journal")
        return place if "://" in place else str(self.project / Path(place).expanduser())

    @property
    def spool_path(self) -> Path:
        return self.home / "spool"

    @property
    def tracking_uri(self) -> str:
        return self.registry.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def artifacts_path(self) -> Path:
        """Of the embedded registry; a server knows its own."""
        return self.home / "mlartifacts"

    @property
    def state_url(self) -> str:
        return self.state.url or f"sqlite:///{self.home / 'state.db'}"

    @property
    def cache_path(self) -> Path:
        return self.home / "cache"

    @property
    def rollout_path(self) -> Path:
        return self.home / "rollout" / f"{self.model.name}.json"

    @property
    def jobs_path(self) -> Path:
        return self.home / "jobs"

    @property
    def runs_path(self) -> Path:
        """What retraining runs leave: training sets, holdouts, references."""
        return self.home / "runs"

    @property
    def reports_path(self) -> Path:
        return self.home / "reports"

    @property
    def references_path(self) -> Path:
        return self.home / "references"

    @property
    def logs_path(self) -> Path:
        return self.home / "logs"

    @property
    def keys_path(self) -> Path:
        return self.auth.keys_file or self.home / "keys.toml"


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a project's settings; a function of the files and the environment given.

    `path` is the file, or the project's folder. Keys may be overridden by variables such as
    HOMEOSTAT_SERVING_PORT. Relative paths are taken from the project's folder. Raises
    SettingsError naming the file, the key, what is allowed and the nearest right name; also where
    the training data or the test set it names is not there.
    """
    file = path / FILE_NAME if path.is_dir() else path
    settings = read(Settings, file, environ)
    check(settings, file)
    return settings
