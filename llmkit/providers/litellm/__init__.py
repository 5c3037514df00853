"""Every provider that LiteLLM routes to."""
