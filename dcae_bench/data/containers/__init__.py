"""Containers: files that hold many images, read in place and never unpacked."""
