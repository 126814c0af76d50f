"""Backups: everything a project's platform keeps, of one moment, and back into an empty home."""
