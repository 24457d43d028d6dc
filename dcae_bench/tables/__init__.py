"""Tables and figures, made from records alone and without torch."""
