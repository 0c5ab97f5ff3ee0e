"""resnet-lesion timed against what a user would write instead: ``python -m benchmarks``, from a clone."""
