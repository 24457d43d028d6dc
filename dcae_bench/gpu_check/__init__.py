"""The checks of a GPU: everything that the tests cannot try without one, at tiny size, in three minutes."""
