"""How a command runs: its device, its precision, its processes, and the lock of a workflow run."""
