"""One pass over data: read, cut into shards, kept on disk, merged. Below: engines, results."""
