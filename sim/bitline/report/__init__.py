"""The report: schema, text, tables, figures."""
