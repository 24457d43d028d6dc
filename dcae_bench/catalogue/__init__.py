"""Catalogues: the autoencoders and denoisers that have a name, read from ``baselines/``."""
