"""Conversations that are kept in the store."""
