"""Finding, registering, fetching and pointing at versions in a real MLflow."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from registry_fixtures import LoggedModels

from homeostat.errors import IntegrityError, ModelError, NotReady
from homeostat.records import FeatureKind, Rollout, Trial, TrialKind, VersionRef, from_json
from homeostat.registry.cache import entry_path, model_folder, read_spec, verify
from homeostat.registry.mlflow_registry import LoggedModel, Registry
from homeostat.settings import Settings, load

FETCH = (sys.executable, "-m", "homeostat.registry", "fetch")


def registered(
    logged_models: LoggedModels, project: Path, tag: str, name: str, more: str = ""
) -> tuple[Settings, Registry, str]:
    """A registry for a model of its own name, and the version of the tag's run in it."""
    settings = logged_models.settings(project, model=name, more=more)
    registry = Registry(settings)
    logged = registry.find_model(f"run-{tag}")
    assert logged is not None
    return settings, registry, registry.register(logged, f"run-{tag}")


def test_a_run_is_found_by_its_tag_wherever_it_is(
    logged_models: LoggedModels, tmp_path: Path
) -> None:
    """A program that calls mlflow.set_experiment is found like one that does not."""
    registry = Registry(logged_models.settings(tmp_path))
    for tag in ("digits", "iris"):
        logged = registry.find_model(f"run-{tag}")
        assert logged is not None
        assert logged.status == "FINISHED"
        assert logged.model_uri == f"models:/{logged_models.models[tag]}"


def test_of_several_models_the_last_one_counts(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A run that logs a model at every checkpoint means its last."""
    logged = Registry(logged_models.settings(tmp_path)).find_model("run-checkpoints")
    assert logged is not None
    assert logged.model_uri == f"models:/{logged_models.models['checkpoints']}"


def test_no_run_and_no_model_are_told_apart(logged_models: LoggedModels, tmp_path: Path) -> None:
    """An unknown tag gives nothing; a run without a model gives the run, and registers as error."""
    registry = Registry(logged_models.settings(tmp_path))
    assert registry.find_model("run-of-nobody") is None
    empty = registry.find_model("run-empty")
    assert empty is not None
    assert empty.model_uri is None
    with pytest.raises(ModelError, match="logged no model"):
        registry.register(empty, "run-empty")


def test_a_model_of_an_older_client_is_found(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A model that lies among its run's artifacts, as before MLflow 3, registers and fetches."""
    settings = logged_models.settings(tmp_path, model="older")
    client = MlflowClient(logged_models.uri)
    experiment = client.create_experiment("older", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment, tags={"homeostat.run": "run-older"})
    _, digits, version = registered(logged_models, tmp_path / "other", "digits", "copied")
    digits.fetch(version, feature_names=())
    copied = model_folder(
        entry_path(tmp_path / "other" / ".homeostat" / "cache", "copied", version)
    )
    client.log_artifacts(run.info.run_id, str(copied), "model")
    client.set_terminated(run.info.run_id)

    registry = Registry(settings)
    logged = registry.find_model("run-older")
    assert logged is not None
    assert logged.model_uri == f"runs:/{run.info.run_id}/model"
    ref = registry.fetch(registry.register(logged, "run-older"), feature_names=())
    assert verify(entry_path(settings.cache_path, "older", ref.version), ref.digest).runtime == (
        "torch"
    )


def test_registering_again_gives_the_same_version(
    logged_models: LoggedModels, tmp_path: Path
) -> None:
    """A loop that died after registering, and asks again, makes no second version."""
    _, registry, first = registered(logged_models, tmp_path / "a", "digits", "again")
    _, fresh, second = registered(logged_models, tmp_path / "b", "digits", "again")
    assert first == second == "1"
    assert fresh.our_run(second) == "run-digits"
    assert fresh.version_run(second) == registry.version_run(first) is not None


def test_a_version_the_program_registered_is_taken_over(
    logged_models: LoggedModels, tmp_path: Path
) -> None:
    """A program with registered_model_name=… does not get its model registered twice."""
    _, registry, version = registered(logged_models, tmp_path, "iris", "iris")
    assert version == "1"
    assert registry.our_run(version) == "run-iris"
    assert len(MlflowClient(logged_models.uri).search_model_versions("name = 'iris'")) == 1


def test_a_tensor_gets_the_names_of_the_training_data(
    logged_models: LoggedModels, tmp_path: Path
) -> None:
    """One name for each element of the tensor, flat; the signature has none of its own."""
    settings, registry, version = registered(logged_models, tmp_path, "digits", "named")
    names = tuple(f"pixel{i}" for i in range(64))
    ref = registry.fetch(version, feature_names=names)
    spec = verify(entry_path(settings.cache_path, "named", version), ref.digest)
    assert spec.names == names
    assert (spec.runtime, spec.tensor_shape, spec.tensor_dtype) == ("torch", (1, 8, 8), "float32")
    assert spec.classes == tuple(f"digit {i}" for i in range(10))
    assert spec.run_id == registry.version_run(version)


def test_names_that_do_not_fit_are_not_used(logged_models: LoggedModels, tmp_path: Path) -> None:
    """Where the training data has another number of columns, elements are numbered."""
    settings, registry, version = registered(logged_models, tmp_path, "digits", "numbered")
    registry.fetch(version, feature_names=("a", "b"))
    names = read_spec(entry_path(settings.cache_path, "numbered", version)).names
    assert names == tuple(f"x{i}" for i in range(64))


def test_columns_keep_their_names_and_kinds(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A signature of columns says what each is; given names do not replace them."""
    settings, registry, version = registered(logged_models, tmp_path, "colours", "kinds")
    registry.fetch(version, feature_names=("x", "y", "z"))
    spec = read_spec(entry_path(settings.cache_path, "kinds", version))
    assert spec.runtime == "pyfunc"
    assert spec.tensor_shape is None
    assert [(f.name, f.kind, f.integer) for f in spec.features] == [
        ("count", FeatureKind.NUMBER, True),
        ("width", FeatureKind.NUMBER, False),
        ("colour", FeatureKind.CATEGORY, False),
    ]


def test_fetching_again_reuses_and_repairs(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A whole entry is taken as it is; a harmed one is fetched anew, with the same digest."""
    settings, registry, version = registered(logged_models, tmp_path, "digits", "repaired")
    first = registry.fetch(version, feature_names=())
    entry = entry_path(settings.cache_path, "repaired", version)
    moment = (entry / "homeostat.json").stat().st_mtime_ns
    assert registry.fetch(version, feature_names=()) == first
    assert (entry / "homeostat.json").stat().st_mtime_ns == moment

    (model_folder(entry) / "data" / "model.pt2").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match="was changed"):
        verify(entry, first.digest)
    assert registry.fetch(version, feature_names=()) == first
    verify(entry, first.digest)
    assert [path.name for path in entry.parent.iterdir()] == [version]


def test_a_lost_cache_comes_back_after_the_columns_changed(
    logged_models: LoggedModels, tmp_path: Path
) -> None:
    """A version keeps its digest under other feature names, so that it can serve again."""
    settings, registry, version = registered(logged_models, tmp_path, "digits", "lost")
    first = registry.fetch(version, feature_names=tuple(f"old{i}" for i in range(64)))
    shutil.rmtree(settings.cache_path)
    assert registry.fetch(version, feature_names=tuple(f"new{i}" for i in range(64))) == first
    spec = verify(entry_path(settings.cache_path, "lost", version), first.digest)
    assert spec.names[0] == "new0"


def test_an_unknown_version_is_not_ready(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A version that nobody registered is said to be missing, with those there are; no half entry
    is left."""
    settings, registry, _ = registered(logged_models, tmp_path, "digits", "unknown")
    with pytest.raises(NotReady, match="no version 99 of unknown; its newest are 1"):
        registry.fetch("99", feature_names=())
    assert list((settings.cache_path / "unknown").iterdir()) == []


def test_a_model_without_signature_says_what_to_do(
    logged_models: LoggedModels, tmp_path: Path
) -> None:
    """A model that does not say what it takes cannot be served; the error tells how."""
    settings = logged_models.settings(tmp_path, model="silent")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors:\n  python_function: {}\n")
    client = MlflowClient(logged_models.uri)
    run = client.create_run(client.create_experiment("silent", (tmp_path / "art").as_uri()))
    client.log_artifacts(run.info.run_id, str(tmp_path / "model"), "model")
    logged = LoggedModel(
        mlflow_run_id=run.info.run_id,
        status="FINISHED",
        model_uri=f"runs:/{run.info.run_id}/model",
    )
    registry = Registry(settings)
    with pytest.raises(ModelError, match="input_example"):
        registry.fetch(registry.register(logged, "run-silent"), feature_names=())


def test_aliases_follow_the_record(logged_models: LoggedModels, tmp_path: Path) -> None:
    """The roles are set as the record says, the new champion is no challenger, others stay."""
    _, registry, first = registered(logged_models, tmp_path, "digits", "pointed")
    logged = registry.find_model("run-digits-one-row")
    assert logged is not None
    second = registry.register(logged, "run-digits-one-row")
    MlflowClient(logged_models.uri).set_registered_model_alias("pointed", "mine", first)
    ours, theirs = VersionRef(version=first, digest=""), VersionRef(version=second, digest="")
    record = Rollout(
        model="pointed",
        epoch=1,
        champion=ours,
        challenger=theirs,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    registry.mirror(record)
    assert registry.aliases() == {"champion": first, "challenger": second, "mine": first}
    registry.mirror(replace(record, champion=theirs, previous=ours, challenger=None))
    assert registry.aliases() == {"champion": second, "previous": first, "mine": first}


def test_a_trial_that_is_over_leaves_no_alias(logged_models: LoggedModels, tmp_path: Path) -> None:
    """The version on trial is the challenger, for as long as it is one."""
    _, registry, first = registered(logged_models, tmp_path, "digits", "tried")
    logged = registry.find_model("run-digits-one-row")
    assert logged is not None
    second = registry.register(logged, "run-digits-one-row")
    one, two = (VersionRef(version=version, digest="") for version in (first, second))
    trial = Trial(version=two, kind=TrialKind.SHADOW, share=0.5)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    record = Rollout(model="tried", epoch=1, champion=one, trial=trial, created_at=now)
    registry.mirror(record)
    assert registry.aliases() == {"champion": first, "challenger": second}
    registry.mirror(replace(record, epoch=2, trial=None), record)
    assert registry.aliases() == {"champion": first}


def test_a_challenger_of_the_teams_own_stays(logged_models: LoggedModels, tmp_path: Path) -> None:
    """An alias that no record ever named is not ours to delete; `previous` is."""
    _, registry, first = registered(logged_models, tmp_path, "digits", "teams")
    logged = registry.find_model("run-digits-one-row")
    assert logged is not None
    second = registry.register(logged, "run-digits-one-row")
    client = MlflowClient(logged_models.uri)
    for alias in ("challenger", "previous"):
        client.set_registered_model_alias("teams", alias, second)
    champion = VersionRef(version=first, digest="")
    registry.mirror(
        Rollout(
            model="teams", epoch=1, champion=champion, created_at=datetime(2026, 1, 1, tzinfo=UTC)
        )
    )
    assert registry.aliases() == {"champion": first, "challenger": second}


def test_no_aliases_before_the_first_version(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A model that nobody registered has no aliases, which is no error."""
    assert Registry(logged_models.settings(tmp_path, model="never")).aliases() == {}


def test_evidence_is_kept_with_the_version(logged_models: LoggedModels, tmp_path: Path) -> None:
    """Files and tags land where MLflow's own pages show them."""
    _, registry, version = registered(logged_models, tmp_path, "digits", "evidence")
    run = registry.version_run(version)
    assert run is not None
    (tmp_path / "gate.json").write_text("{}")
    registry.log_files(run, tmp_path, ["gate.json"], "homeostat")
    registry.set_version_tags(version, {"homeostat.gate": "pass"})
    client = MlflowClient(logged_models.uri)
    assert [file.path for file in client.list_artifacts(run, "homeostat")] == [
        "homeostat/gate.json"
    ]
    tags = client.get_model_version("evidence", version).tags
    assert tags == {"homeostat.run": "run-digits", "homeostat.gate": "pass"}


def test_the_embedded_registry_keeps_everything_at_home(tmp_path: Path) -> None:
    """Without a tracking_uri, the database and the artifacts of the experiment lie in home."""
    (tmp_path / "homeostat.toml").write_text('[model]\nname = "shop"\n')
    settings = load(tmp_path, {})
    registry = Registry(settings)
    registry.prepare()
    registry.prepare()
    experiment = MlflowClient(settings.tracking_uri).get_experiment_by_name("shop")
    assert experiment is not None
    assert experiment.artifact_location == settings.artifacts_path.as_uri()
    assert {path.name for path in tmp_path.iterdir()} == {"homeostat.toml", ".homeostat"}
    assert registry.aliases() == {}


def test_the_helper_process_fills_the_cache(logged_models: LoggedModels, tmp_path: Path) -> None:
    """A server that may not import MLflow gets a version by one command, and one line of JSON."""
    data = tmp_path / "rows.csv"
    data.write_text(",".join([*(f"p{i}" for i in range(64)), "target"]) + "\n")
    settings, _, version = registered(
        logged_models, tmp_path, "digits", "helped", more='training_data = "rows.csv"'
    )
    done = subprocess.run(
        [*FETCH, "--project", str(tmp_path), "--version", version],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ref = from_json(done.stdout, VersionRef)
    spec = verify(entry_path(settings.cache_path, "helped", version), ref.digest)
    assert spec.names[:2] == ("p0", "p1")


def test_who_wants_the_same_version_waits(logged_models: LoggedModels, tmp_path: Path) -> None:
    """Workers of a server ask for a version at once: one fetches, the others find it there. What
    fetches left that were killed is cleared away, of this version and of others."""
    settings, _, version = registered(logged_models, tmp_path, "digits", "wanted")
    entry = entry_path(settings.cache_path, "wanted", version)
    half = entry.with_name(f".{version}") / "model" / "half"
    for path in (half, entry.with_name(".77") / "model"):
        path.mkdir(parents=True)
    command = [*FETCH, "--project", str(tmp_path), "--version", version]
    with (settings.cache_path / f".wanted.{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        helpers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for helper in helpers:
            waits = re.compile(rf"-> FLOCK .* {helper.pid} ")
            deadline = time.monotonic() + 60
            while not waits.search(Path("/proc/locks").read_text()):
                assert helper.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert half.exists()
    answers = [helper.communicate(timeout=60)[0] for helper in helpers]
    assert answers[0] == answers[1]
    verify(entry, from_json(answers[0], VersionRef).digest)
    assert [path.name for path in entry.parent.iterdir()] == [version]
