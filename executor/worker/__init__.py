"""The program that runs user code inside a container, and the engine's end of its wire."""
