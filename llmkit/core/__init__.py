"""One call, from messages to a counted reply; nothing here knows a provider, a price or a database."""
