"""Constraint sets and projections."""
