"""Configuration: every key described once, from which come recipes, flags, `--help` and the reference page."""
