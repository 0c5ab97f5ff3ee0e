"""One residual block, and what its adapter says about it. Below: errors."""
