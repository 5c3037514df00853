"""The one HTTP transport: sync over sockets, async over aiohttp, and as httpx for LiteLLM."""
