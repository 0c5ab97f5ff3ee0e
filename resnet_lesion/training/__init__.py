"""Training, of all blocks or of a random few. Below: runs."""
