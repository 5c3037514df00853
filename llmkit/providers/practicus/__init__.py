"""Practicus endpoints: the `practicus/` deployments, their answers and session tokens."""
