"""Many lesions forward, all path lengths backward; no data, no files. Below: network, warning."""
