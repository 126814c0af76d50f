"""Batch scoring: the rows of a file, a folder or a table through one version, part by part."""
