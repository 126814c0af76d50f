"""The registry: versions, aliases and artifacts, kept in MLflow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

from homeostat.errors import ModelError, NotReady
from homeostat.records import Rollout, VersionRef
from homeostat.registry import connection, fetching, finding
from homeostat.registry.finding import RUN_TAG, LoggedModel
from homeostat.settings import Settings

__all__ = ["ALIASES", "LoggedModel", "Registry"]

log = logging.getLogger(__name__)

SHOWN = 10  # versions, to who names one that there is not
ALIASES = ("champion", "previous", "challenger")


class Registry:
    """One model's versions in MLflow. Every call may raise RegistryUnavailable, within seconds,
    or RegistryRefused.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = settings.model.name
        self._uri = settings.tracking_uri

    @cached_property
    def _client(self) -> MlflowClient:
        # On first use: with a database as tracking_uri this connects and migrates.
        return connection.connect(self._uri)

    @contextmanager
    def _asking(self) -> Iterator[MlflowClient]:
        with connection.answering(self._uri):
            yield self._client

    def prepare(self) -> None:
        """Make sure that the experiment and the registered model exist; idempotent."""
        if self._settings.registry.tracking_uri is None:
            self._settings.home.mkdir(parents=True, exist_ok=True)
        with self._asking() as client:
            self._ensure_experiment(client)
            self._ensure_model(client)

    def find_model(self, tag: str) -> LoggedModel | None:
        """The model of the training program that ran with this tag; None: no such run."""
        with self._asking() as client:
            return finding.find_model(client, tag)

    def register(self, logged: LoggedModel, run_id: str) -> str:
        """Make it a version, once for each of our runs, and return the version.

        A version that the program itself registered for the same MLflow run is taken over.
        """
        if logged.model_uri is None:
            raise ModelError(
                f"the MLflow run {logged.mlflow_run_id} logged no model; end the training program "
                "with mlflow.<flavor>.log_model(model, name=…, input_example=rows)"
            )
        with self._asking() as client:
            self._ensure_model(client)
            for filter_string in (
                f"name = '{self._name}' and tags.`{RUN_TAG}` = '{run_id}'",
                f"name = '{self._name}' and run_id = '{logged.mlflow_run_id}'",
            ):
                existing = client.search_model_versions(filter_string)
                if existing:
                    version = str(max(int(found.version) for found in existing))
                    client.set_model_version_tag(self._name, version, RUN_TAG, run_id)
                    return version
            return self._create_version(client, logged.mlflow_run_id, logged.model_uri, run_id)

    def fetch(self, version: str, *, feature_names: tuple[str, ...]) -> VersionRef:
        """Bring a version into the local cache; at once, and without MLflow, if it is there. Waits
        for another process that fetches the same.

        `feature_names` name the elements of a tensor; a model of columns has its own names.
        """
        settings = self._settings
        found = fetching.cached(settings.cache_path, self._name, version)
        if found is not None:
            return found
        with self._asking_for(version) as client:
            return fetching.download(
                client,
                settings.cache_path,
                self._name,
                version,
                task=settings.model.task,
                names=feature_names,
            )

    def aliases(self) -> dict[str, str]:
        """Version by alias, all that are set; empty where nothing was registered yet."""
        with self._asking() as client:
            try:
                return {
                    name: str(version)
                    for name, version in client.get_registered_model(self._name).aliases.items()
                }
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise

    def mirror(self, rollout: Rollout, before: Rollout | None = None) -> None:
        """Set the aliases of the roles as the record has them; other aliases stay. `before` is the
        record that was mirrored last.

        `challenger` may be a team's own: without one in the record, it goes only where it points
        to the version that has just become the champion, or to the one that `before` made it.
        """
        roles = (rollout.champion, rollout.previous, _challenger(rollout))
        ours = {rollout.champion, _challenger(before) if before else None}
        over = {ref.version for ref in ours if ref is not None}
        wanted = {
            alias: ref.version for alias, ref in zip(ALIASES, roles, strict=True) if ref is not None
        }
        current = self.aliases()
        with self._asking() as client:
            for alias in ALIASES:
                if alias in wanted and current.get(alias) != wanted[alias]:
                    client.set_registered_model_alias(self._name, alias, wanted[alias])
                elif (
                    alias in current
                    and alias not in wanted
                    and (alias != "challenger" or current[alias] in over)
                ):
                    client.delete_registered_model_alias(self._name, alias)

    def log_files(
        self, mlflow_run_id: str, folder: Path, names: Sequence[str], artifact_path: str
    ) -> None:
        """Keep files with the run of a version, such as its reference and its gate's report."""
        with self._asking() as client:
            for name in names:
                client.log_artifact(mlflow_run_id, str(folder / name), artifact_path)

    def set_version_tags(self, version: str, tags: Mapping[str, str]) -> None:
        with self._asking() as client:
            for key, value in tags.items():
                client.set_model_version_tag(self._name, version, key, value)

    def version_run(self, version: str) -> str | None:
        """The MLflow run a version came from."""
        return self._version(version).run_id or None

    def our_run(self, version: str) -> str | None:
        """The retraining run a version came from; None: registered by somebody else."""
        tag: str | None = self._version(version).tags.get(RUN_TAG)
        return tag

    def _version(self, version: str) -> ModelVersion:
        with self._asking_for(version) as client:
            return client.get_model_version(self._name, version)

    @contextmanager
    def _asking_for(self, version: str) -> Iterator[MlflowClient]:
        """Raises NotReady, naming the versions there are, for one that there is not."""
        with self._asking() as client:
            try:
                yield client
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                known = self._newest(client)
                if version in known:
                    raise  # it is there, and something of it is not
                there = f"its newest are {', '.join(known)}" if known else "it has none yet"
                raise NotReady(
                    f"MLflow has no version {version} of {self._name}; {there}"
                ) from error

    def _newest(self, client: MlflowClient) -> list[str]:
        found = client.search_model_versions(
            f"name = '{self._name}'", max_results=SHOWN, order_by=["version_number DESC"]
        )
        return [str(each.version) for each in found]

    def _ensure_experiment(self, client: MlflowClient) -> None:
        settings = self._settings
        name = settings.registry.experiment or self._name
        if client.get_experiment_by_name(name) is not None:
            return
        embedded = settings.registry.tracking_uri is None
        location = settings.artifacts_path.as_uri() if embedded else None
        with _already_there():
            client.create_experiment(name, artifact_location=location)

    def _ensure_model(self, client: MlflowClient) -> None:
        with _already_there():
            client.create_registered_model(self._name)

    def _create_version(
        self, client: MlflowClient, mlflow_run_id: str, uri: str, run_id: str
    ) -> str:
        source, model_id = uri, None
        if uri.startswith("models:/m-"):
            model_id = uri.removeprefix("models:/")
            if not self._uri.startswith("http"):
                # A database as registry resolves such a source by the process-wide tracking URI.
                source = client.get_logged_model(model_id).artifact_location
        elif uri.startswith("runs:/"):
            source = RunsArtifactRepository.get_underlying_uri(uri, tracking_uri=self._uri)
        created = client.create_model_version(
            self._name, source, mlflow_run_id, tags={RUN_TAG: run_id}, model_id=model_id
        )
        log.info("Registered version %s of %s.", created.version, self._name)
        return str(created.version)


def _challenger(rollout: Rollout) -> VersionRef | None:
    return rollout.challenger or (rollout.trial.version if rollout.trial else None)


@contextmanager
def _already_there() -> Iterator[None]:
    """Somebody made it before, or at the same moment: fine."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
