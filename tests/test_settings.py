"""homeostat.toml and the environment become typed settings, or an error that says what to do."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from homeostat.errors import SettingsError
from homeostat.records import Mode, Task
from homeostat.settings import Settings, load
from homeostat.settings_checks import NUMBERS, require_files
from homeostat.settings_of_the_loop import GateSettings
from homeostat.settings_reader import bare, hints
from homeostat.words import Rate, Size

SMALLEST = '[model]\nname = "shop"\n'


def read(folder: Path, text: str = SMALLEST, environ: dict[str, str] | None = None) -> Settings:
    (folder / "homeostat.toml").write_text(text)
    return load(folder, environ or {})


def error(folder: Path, text: str, environ: dict[str, str] | None = None) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        read(folder, text, environ)
    return raised.value


def test_a_name_is_all_a_project_needs(tmp_path: Path) -> None:
    """Everything else has a default, and lies in the project's folder."""
    settings = read(tmp_path)
    assert settings.model.name == "shop"
    assert settings.mode is Mode.ACT
    assert settings.home == tmp_path / ".homeostat"
    assert settings.project == tmp_path
    assert settings.state_url == f"sqlite:///{tmp_path}/.homeostat/state.db"
    assert settings.rollout_path == tmp_path / ".homeostat/rollout/shop.json"
    assert load(tmp_path / "homeostat.toml", {}) == settings


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    """Words, paths, lists, choices, numbers, and sections that repeat."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.parquet").touch()
    settings = read(
        tmp_path,
        """
        mode = "observe"
        [model]
        name = "shop"
        task = "regression"
        training_data = "data/train.parquet"
        features = ["a", "b"]
        [serving]
        max_body = "2MB"
        drain = "1m30s"
        [monitor]
        false_alarms = "2 per 7d"
        drift_share = 1
        [gate]
        minimum = 2.5
        [retrain]
        budget = "3 per d"
        [[alerts]]
        url = "https://a.example"
        secret_file = "secret"
        [[alerts]]
        url = "https://b.example"
        events = ["model.*"]
        """,
    )
    assert (settings.mode, settings.model.task) == (Mode.OBSERVE, Task.REGRESSION)
    assert settings.model.training_data == tmp_path / "data/train.parquet"
    assert settings.model.features == ("a", "b")
    assert settings.serving.max_body == 2_000_000
    assert settings.serving.drain == timedelta(seconds=90)
    assert settings.monitor.false_alarms == Rate(2, timedelta(days=7))
    assert settings.retrain.budget == Rate(3, timedelta(days=1))
    assert settings.monitor.drift_share == 1.0
    assert settings.gate.minimum == 2.5
    assert [alert.url for alert in settings.alerts] == ["https://a.example", "https://b.example"]
    assert settings.alerts[0].secret_file == tmp_path / "secret"
    assert settings.alerts[1].events == ("model.*",)


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    """What a process starts with is what it has."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(tmp_path).serving.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("[model]\nnam = 'x'", "model.nam", 'did you mean "name"?'),
        (SMALLEST + "[servng]\nport = 1", "servng", 'did you mean "serving"?'),
        (
            SMALLEST + "[console]\nxyzzy = 1",
            "console.xyzzy",
            "allowed: host, port",
        ),
        ("mode = 'act'", "model", "missing"),
        ("[model]\n", "model.name", "missing; registered model in MLflow"),
        ("[model]\nname = 5", "model.name", "text in quotes, not 5"),
        (SMALLEST + "[serving]\nport = '80'", "serving.port", 'a whole number, not "80"'),
        (SMALLEST + "[serving]\nport = true", "serving.port", "a whole number, not True"),
        (SMALLEST + "[serving]\nport = 80.5", "serving.port", "a whole number, not 80.5"),
        (SMALLEST + "[gate]\nmargin = 'low'", "gate.margin", 'a number, not "low"'),
        (SMALLEST + "[registry]\nui = 1", "registry.ui", "true or false, not 1"),
        (SMALLEST + "[monitor]\nevery = '5 parsecs'", "monitor.every", 'such as "30s"'),
        (SMALLEST + "[monitor]\nevery = 300", "monitor.every", "a duration in words and in quotes"),
        (SMALLEST + "[monitor]\nfalse_alarms = '1/d'", "monitor.false_alarms", "1 per 30d"),
        (SMALLEST + "[serving]\nmax_body = '8 lots'", "serving.max_body", '"64MB"'),
        (SMALLEST + "[journal]\ndurability = 'spol'", "journal.durability", 'mean "spool"?'),
        ("mode = 'atc'\n" + SMALLEST, "mode", '"observe", "propose", "act", not "atc"'),
        (SMALLEST + "[gate]\ntest_set = 5", "gate.test_set", "a path in quotes, not 5"),
        (SMALLEST + "[gate]\nslices = 'camera'", "gate.slices", 'a list, not "camera"'),
        (SMALLEST + "[gate]\nslices = ['a', 5]", "gate.slices[1]", "text in quotes, not 5"),
        ("serving = 5\n" + SMALLEST, "serving", "a section [serving], not 5"),
        (SMALLEST + "[alerts]\nurl = 'x'", "alerts", "a list"),
        (SMALLEST + "[[alerts]]\nulr = 'x'", "alerts[0].ulr", 'did you mean "url"?'),
        ("project = '/'\n" + SMALLEST, "project", "no such key"),
        # rules that take more than one key
        ("[model]\nname = 'a/b'", "model.name", "letters"),
        (SMALLEST + "[monitor]\nwindow = '1m'", "monitor.window", "shorter than monitor.every"),
        (SMALLEST + "[monitor]\ndrift_share = 0.0", "monitor.drift_share", "above 0 to 1"),
        (SMALLEST + "[gate]\nholdout_share = 1.0", "gate.holdout_share", "to below 1"),
        (SMALLEST + "[gate]\nminimum = 2.5", "gate.minimum", "an accuracy, at most 1"),
        # values that cannot be right
        (SMALLEST + "[serving]\nport = 99999", "serving.port", "from 0 to 65535, not 99999"),
        (SMALLEST + "[console]\nport = -1", "console.port", "from 0"),
        (SMALLEST + "[serving]\nthreads = 0", "serving.threads", "from 1, not 0"),
        (SMALLEST + "[serving]\nmax_batch_rows = 0", "serving.max_batch_rows", "from 1"),
        (SMALLEST + "[serving]\nmax_queued_rows = 0", "serving.max_queued_rows", "from 1"),
        (SMALLEST + "[monitor]\nmin_rows = -5", "monitor.min_rows", "from 2, not -5"),
        (SMALLEST + "[monitor]\nbug_share = 7.0", "monitor.bug_share", "from 0 to 1, not 7.0"),
        (SMALLEST + "[retrain]\nconfirmations = 0", "retrain.confirmations", "from 1"),
        (SMALLEST + "[gate]\nmargin = nan", "gate.margin", "from 0 to 1, not nan"),
        (SMALLEST + "[gate]\nmargin = -3", "gate.margin", "not -3.0"),
        (SMALLEST + "[gate]\nlatency_ratio = 0", "gate.latency_ratio", "above 0, not 0.0"),
        (SMALLEST + "[monitor]\nevery = '0s'", "monitor.every", "a duration above zero"),
        (SMALLEST + "[serving]\npoll = '0s'", "serving.poll", "a duration above zero"),
        (SMALLEST + "[serving]\nbreaker_share = 2", "serving.breaker_share", "from 0 to 1"),
        (SMALLEST + "[serving]\nbreaker_rest = '0s'", "serving.breaker_rest", "above zero"),
        (SMALLEST + "[serving]\ntraces = 'collector:4318'", "serving.traces", "http or https"),
        (SMALLEST + "[serving]\ntraces = 'http://:4318'", "serving.traces", "http or https"),
        (SMALLEST + "[serving]\ntraces = 'http://a:99999'", "serving.traces", "http or https"),
        (SMALLEST + "[serving]\ntraces = 'http://me:x@a'", "serving.traces", "OTLP_HEADERS"),
        (SMALLEST + "[serving]\ntraces = 'http://:x@a'", "serving.traces", "OTLP_HEADERS"),
        (SMALLEST + "[serving]\ntraces = 'http://a/?key=x'", "serving.traces", "OTLP_HEADERS"),
        (SMALLEST + "[serving]\ntraces_share = 2", "serving.traces_share", "from 0 to 1"),
        (SMALLEST + "[serving]\ndefault_answer = 'yes'", "serving.default_answer", "in JSON"),
        (SMALLEST + "[serving]\ndefault_answer = '0.5'", "serving.default_answer", "a class"),
        (
            "[model]\nname = 'shop'\ntask = 'regression'\n[serving]\ndefault_answer = 'nan'",
            "serving.default_answer",
            "a number",
        ),
        (SMALLEST + "[retrain]\ncommand = ['x', '{trian}']", "retrain.command", "{trian}"),
        (SMALLEST + "[gate]\nmetric = 'mae'", "gate.metric", "does not measure"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(
    tmp_path: Path, text: str, key: str, says: str
) -> None:
    """The file, the key, what is allowed, and the nearest right name."""
    raised = error(tmp_path, text)
    assert raised.key == key
    assert raised.file == str(tmp_path / "homeostat.toml")
    assert str(raised).startswith(f"{raised.file}: {key}: ")
    assert says in str(raised)


def test_no_project_no_toml_and_no_file_are_told(tmp_path: Path) -> None:
    """Each says what to do, or where the mistake is."""
    with pytest.raises(SettingsError, match="homeostat init"):
        load(tmp_path, {})
    assert "line 1" in str(error(tmp_path, "model name"))
    (tmp_path / "folder.toml" / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "link", {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """Numbers, words, lists and choices, for keys the file has and has not."""
    settings = read(
        tmp_path,
        SMALLEST + "[serving]\nport = 1",
        {
            "HOMEOSTAT_SERVING_PORT": "9000",
            "HOMEOSTAT_MODE": "propose",
            "HOMEOSTAT_MONITOR_EVERY": "10s",
            "HOMEOSTAT_MONITOR_FALSE_ALARMS": "1 per d",
            "HOMEOSTAT_MONITOR_DRIFT_SHARE": "0.4",
            "HOMEOSTAT_REGISTRY_UI": "false",
            "HOMEOSTAT_GATE_SLICES": "camera, shop",
            "HOMEOSTAT_JOURNAL_COMMIT_BYTES": "1MB",
            "HOMEOSTAT_HOME": "elsewhere",
            "PATH": "/bin",
        },
    )
    assert settings.serving.port == 9000
    assert settings.mode is Mode.PROPOSE
    assert settings.monitor.every == timedelta(seconds=10)
    assert settings.monitor.false_alarms == Rate(1, timedelta(days=1))
    assert settings.monitor.drift_share == 0.4
    assert settings.registry.ui is False
    assert settings.gate.slices == ("camera", "shop")
    assert settings.journal.commit_bytes == 10**6
    assert settings.home == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("variable", "value", "key", "says"),
    [
        ("HOMEOSTAT_SERVING_PROT", "1", "HOMEOSTAT_SERVING_PROT", "HOMEOSTAT_SERVING_PORT"),
        ("HOMEOSTAT_SERVING_PORT", "many", "serving.port", 'a whole number, not "many"'),
        ("HOMEOSTAT_REGISTRY_UI", "perhaps", "registry.ui", 'true or false, not "perhaps"'),
        ("HOMEOSTAT_PROJECT", "/", "HOMEOSTAT_PROJECT", "no such setting"),
    ],
)
def test_a_wrong_variable_is_told(
    tmp_path: Path, variable: str, value: str, key: str, says: str
) -> None:
    """A typing mistake in the environment is not ignored."""
    raised = error(tmp_path, SMALLEST, {variable: value})
    assert raised.key == key
    assert says in str(raised)


def test_a_variable_for_a_section_that_is_none_is_still_a_clear_error(tmp_path: Path) -> None:
    """The file's mistake is told, not an accident of ours."""
    raised = error(tmp_path, "serving = 5\n" + SMALLEST, {"HOMEOSTAT_SERVING_PORT": "1"})
    assert raised.key == "serving"


def test_variables_the_project_names_itself_are_its_own(tmp_path: Path) -> None:
    """Secrets, and what the training program gets, are no settings of ours."""
    settings = read(
        tmp_path,
        SMALLEST + '[retrain]\nenv = ["HOMEOSTAT_MY_KEY"]\n'
        '[journal]\nhash_key_env = "HOMEOSTAT_HASH_KEY"\n'
        '[[alerts]]\nurl = "https://a.example"\nsecret_env = "HOMEOSTAT_WEBHOOK_SECRET"\n',
        {
            "HOMEOSTAT_MY_KEY": "1",
            "HOMEOSTAT_HASH_KEY": "key_not_to_be_seen",
            "HOMEOSTAT_WEBHOOK_SECRET": "whsec_not_to_be_seen",
        },
    )
    assert "not_to_be_seen" not in repr(settings)


def test_every_number_has_its_bounds() -> None:
    """A new number without a line in the table would be accepted whatever it is."""
    numbers = {
        f"{name}.{key}"
        for name, section in hints(Settings).items()
        if dataclasses.is_dataclass(bare(section))
        for key, hint in hints(bare(section)).items()
        if bare(hint) in (int, float, Size, int | None, float | None, Size | None)
    }
    assert numbers == set(NUMBERS)


def test_none_at_all_is_a_duration_where_it_means_at_once(tmp_path: Path) -> None:
    """No delay of the labels and no cooldown are settings like others."""
    text = SMALLEST + "[monitor]\nlabel_delay = '0s'\n[retrain]\ncooldown = '0s'"
    assert not read(tmp_path, text).retrain.cooldown


def test_the_environment_is_checked_and_settings_made_in_code_are_not(tmp_path: Path) -> None:
    """A variable is held to the file's rules; what a program builds itself is its own."""
    assert error(tmp_path, SMALLEST, {"HOMEOSTAT_SERVING_THREADS": "0"}).key == "serving.threads"
    assert GateSettings(test_set=tmp_path / "gone.csv", margin=7).margin == 7


def test_every_key_says_what_it_means() -> None:
    """A key without a line of documentation is not finished."""
    for name, hint in hints(Settings).items():
        section = bare(hint)
        if dataclasses.is_dataclass(section):
            assert isinstance(section, type)
            undocumented = [
                key for key, sub in hints(section).items() if not getattr(sub, "__metadata__", "")
            ]
            assert (name, undocumented) == (name, [])
            assert section.__doc__


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (SMALLEST + "[gate]\ntest_set = 'gone.csv'", "gate.test_set"),
        (SMALLEST + "training_data = 'gone.csv'", "model.training_data"),
    ],
)
def test_who_trains_wants_the_files(tmp_path: Path, text: str, key: str) -> None:
    """A server elsewhere may do without; `up` and `loop` say at once what is missing."""
    with pytest.raises(SettingsError, match=r"there is no file .*gone\.csv") as raised:
        require_files(read(tmp_path, text))
    assert raised.value.key == key


def test_the_log_lies_in_the_project_or_where_its_url_says(tmp_path: Path) -> None:
    """A relative folder does not depend on where a process was started."""
    places = {
        '""': str(tmp_path / ".homeostat/journal"),
        '"logs"': str(tmp_path / "logs"),
        '"/var/logs"': "/var/logs",
        '"s3://bucket/logs"': "s3://bucket/logs",
    }
    for place, expected in places.items():
        key = "" if place == '""' else f"path = {place}"
        (tmp_path / "homeostat.toml").write_text(f'[model]\nname = "m"\n[journal]\n{key}\n')
        assert load(tmp_path, {}).journal_path == expected
