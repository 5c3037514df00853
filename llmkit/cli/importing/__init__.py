"""What other programs have, and how it becomes llmkit's. Imported by the one command that wants it."""
