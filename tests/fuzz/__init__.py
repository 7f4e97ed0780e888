"""The campaign of ``make fuzz``: hostile files, bombs, signals and closed streams against the real command line."""
