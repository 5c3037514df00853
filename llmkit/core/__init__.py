"""One call, from messages to a reply that is counted: it knows no provider, no price and no database."""
