"""Learns routes from LiteLLM, and compares the two: nothing here runs in a call."""
