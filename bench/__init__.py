"""Measurements of Homeostat against what people use instead; see bench/RESULTS.md."""
