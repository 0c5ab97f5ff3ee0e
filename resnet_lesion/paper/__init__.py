"""The paper's experiments, and its claims beside what came out. Below: loading, training, analyzers."""
