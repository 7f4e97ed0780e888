"""Network definitions, one a file, and the trained checkpoints that ship, each with its recipe."""
