"""Declaration to graph to plan. Nothing here reads a file, a clock or the environment."""
