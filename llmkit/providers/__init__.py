"""Everything that sends: the transport, and what speaks to providers over it."""
