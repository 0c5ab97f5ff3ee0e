"""One residual block, and what its adapter says of it. Below: errors."""
