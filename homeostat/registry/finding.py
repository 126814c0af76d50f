"""The MLflow run of a training program, and the model it logged."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

# On MLflow runs (by MLFLOW_RUN_CONTEXT) and on registered versions: our run's id.
RUN_TAG = "homeostat.run"
_PAGE = 1000
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True, kw_only=True)
class LoggedModel:
    """What a training program left in MLflow; `model_uri` None: it logged no model."""

    mlflow_run_id: str
    status: str  # MLflow's: "FINISHED", "FAILED", "RUNNING" …
    model_uri: str | None


def find_model(client: MlflowClient, tag: str) -> LoggedModel | None:
    """The best of the runs that carry the tag; None where there is none.

    A program may start several: one with a model before one without, a finished one before a
    failed one, a parent before its children, the newest first.
    """
    runs = client.search_runs(
        _experiment_ids(client),
        filter_string=f"tags.`{RUN_TAG}` = '{tag}'",
        run_view_type=ViewType.ACTIVE_ONLY,
        max_results=_PAGE,
        order_by=["attributes.start_time DESC"],
    )
    found = [
        (model_uri is None, run.info.status != "FINISHED", _PARENT_TAG in run.data.tags, age)
        for age, run in enumerate(runs)
        for model_uri in (_model_uri(client, run),)
    ]
    if not found:
        return None
    run = runs[min(found)[-1]]
    return LoggedModel(
        mlflow_run_id=run.info.run_id,
        status=run.info.status,
        model_uri=_model_uri(client, run),
    )


def _experiment_ids(client: MlflowClient) -> list[str]:
    """Every experiment: the program may have chosen its own."""
    ids: list[str] = []
    token = None
    while True:
        page = client.search_experiments(
            view_type=ViewType.ACTIVE_ONLY, max_results=_PAGE, page_token=token
        )
        ids += [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return ids


def _model_uri(client: MlflowClient, run: Run) -> str | None:
    outputs = run.outputs.model_outputs if run.outputs else []
    if outputs:
        # A program that logs a model at every checkpoint means the last one.
        last = max(outputs, key=lambda output: (output.step, _created(client, output.model_id)))
        return f"models:/{last.model_id}"
    return _artifact_model(client, run.info.run_id)


def _created(client: MlflowClient, model_id: str) -> int:
    return int(client.get_logged_model(model_id).creation_timestamp)


def _artifact_model(client: MlflowClient, run_id: str) -> str | None:
    """A model among a run's artifacts, as clients before MLflow 3 log it."""
    try:
        files = client.list_artifacts(run_id)
        for folder in (file.path for file in files if file.is_dir):
            if any(f.path == f"{folder}/MLmodel" for f in client.list_artifacts(run_id, folder)):
                return f"runs:/{run_id}/{folder}"
    except (MlflowException, OSError):
        return None  # a run without artifacts may have no folder at all
    return None
