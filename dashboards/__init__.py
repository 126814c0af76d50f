"""Grafana dashboards and Prometheus rules as code.

What is built lies in `provisioned/` and is shipped with the package; only building it again needs
Grafana's SDK, which is a development dependency.
"""
