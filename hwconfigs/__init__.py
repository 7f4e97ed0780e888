"""The hardware descriptions that ship with Bitline, one YAML file a design."""
