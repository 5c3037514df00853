"""Commands for what stands before a question: settings, presets, routes."""
