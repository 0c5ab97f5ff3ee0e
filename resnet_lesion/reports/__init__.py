"""A result in words, tables and pages. Below: plots, runs, text."""
