"""The report: one page in HTML of everything that was measured, made from tables and records alone."""
