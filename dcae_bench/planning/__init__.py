"""Planning: what a profile costs, what of it can run on this machine, and which jobs its workflow has."""
