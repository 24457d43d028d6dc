"""Training of autoencoders, in three phases, and of denoisers; both use one training loop."""
