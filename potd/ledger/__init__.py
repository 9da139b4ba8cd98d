"""The ledger: what the agreed records mean for accounts, tasks and pay. Knows nothing of how they were agreed on."""
