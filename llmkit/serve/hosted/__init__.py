"""A user's model.py under a name: loaded, run on its own event loop, and tracked."""
