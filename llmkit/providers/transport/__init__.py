"""The one HTTP transport: blocking over sockets, awaited over aiohttp, and as httpx for LiteLLM."""
