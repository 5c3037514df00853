"""What calls cost and what they may cost: estimates, budgets, the ledger and its reports."""
