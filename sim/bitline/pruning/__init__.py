"""Constraint sets with exact projections, training that keeps them, ADMM, recipes."""
