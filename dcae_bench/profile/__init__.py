"""Profiles: each is one experiment, read from ``config/`` and checked field by field."""
