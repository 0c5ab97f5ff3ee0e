"""A faster copy of a network. Below: engines, results."""
