"""Figures of reconstructions, trainings and samples, drawn from records and the files beside them."""
