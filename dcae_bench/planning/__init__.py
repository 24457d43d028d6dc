"""Planning: what a profile costs, estimated before anything runs."""
