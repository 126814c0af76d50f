"""Closes the loop: scheduler, durable state machine, console, command line, demo."""
