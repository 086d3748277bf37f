"""Comparison: several methods on one base and one data set, measured and shown side by side."""
