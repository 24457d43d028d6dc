"""Tables and figures, made from records and reported values alone."""
