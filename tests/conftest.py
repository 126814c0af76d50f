"""Fixtures that more than one room's tests use."""

from __future__ import annotations

from registry_fixtures import logged_models  # noqa: F401 - a fixture, used by its name
