"""When functions fire: due times, the ledger of firings, and the service that wakes the engine."""
