"""Makes a plan so and keeps it running: builds, workers, calls."""
