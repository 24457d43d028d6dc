"""Subjects, the models that are measured: how one is chosen, opened with its weights, and described for records."""
