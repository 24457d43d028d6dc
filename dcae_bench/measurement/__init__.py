"""Measurement of throughput and energy: instruments, workloads, sessions, plans, records and evidence."""
