"""A faster copy of a network: the same function up to rounding. Below: engines, results."""
