"""Fixtures that more than one room's tests use, and the option that forbids skipping."""

from __future__ import annotations

import pytest
from hypothesis import settings
from registry_fixtures import logged_models  # noqa: F401 - a fixture, used by its name

# Machines are noisy: how long a case takes says nothing of the code.
settings.register_profile("homeostat", deadline=None)
settings.load_profile("homeostat")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="A skipped test fails the run: nothing is missing."
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
