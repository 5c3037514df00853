"""One process of a map's crew; see `llmkit.jobs.workers.crew`."""

from llmkit.jobs.workers.crew import work

work()
