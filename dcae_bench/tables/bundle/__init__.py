"""Bundles: everything that was measured in one run, in one sealed folder or zip that anyone can check."""
