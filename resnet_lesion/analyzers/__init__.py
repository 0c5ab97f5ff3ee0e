"""What is asked of a network. Below: runs."""
