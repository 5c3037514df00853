"""aiXplain's models: the `aixplain/` deployments, polled runs and the catalogue."""
