"""Checks, decisions, runs, rollouts, events, leases: what must not be forgotten, in a database."""
