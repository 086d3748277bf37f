"""Graftune: every parameter-efficient fine-tuning method on one frozen transformer."""
