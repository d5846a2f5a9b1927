"""The HTTP gateway: hosts and paths to functions, ASGI messages to workers."""
