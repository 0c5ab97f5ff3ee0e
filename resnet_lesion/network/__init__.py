"""A model seen as n residual blocks in a row. Below: blocks, checks."""
