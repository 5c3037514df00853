"""The protocols of the server, one per module."""
