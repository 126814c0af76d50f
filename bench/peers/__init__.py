"""Servers we are measured against. Each gets a folder of bench.model_project and a port."""
