"""The protocols of the server, one in a module."""
