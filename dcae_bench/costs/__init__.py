"""Costs of a training step and of a pass: operations and memory, counted instead of measured."""
