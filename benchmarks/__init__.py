"""resnet-lesion timed beside what a user would write instead: ``python -m benchmarks``, from a clone."""
