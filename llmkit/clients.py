"""The import path of the document of llmax: `from llmkit.clients import MultiAIClient`."""

from llmkit.client import MultiAIClient as MultiAIClient
