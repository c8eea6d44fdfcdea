"""The real servers, functions and data plane on this machine, under one supervisor."""
