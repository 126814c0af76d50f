"""The status page, and what other programs may ask the loop."""
