"""What the functions run in: the path of an event, the ASGI shell, the worker that computes, services and settings."""
