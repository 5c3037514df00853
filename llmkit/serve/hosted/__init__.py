"""Somebody's model.py behind a name: loaded, run on a loop of its own, counted."""
