"""Sources of weights: the hub, other web addresses, folders in the layout of diffusers, and the user's own classes."""
