"""Data sets and activation traces."""
