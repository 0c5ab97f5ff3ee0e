"""One residual block, and what its adapter says of it. Imports nothing of the package but errors and checks."""
