"""Routes: what LiteLLM does with a provider's requests and answers, asked once and remembered."""
