"""How it travels: CloudEvents, storage notifications, and the log that carries both."""
