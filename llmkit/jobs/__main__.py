"""One process of a map's crew; see `llmkit.jobs.crew`."""

from llmkit.jobs.crew import work

work()
