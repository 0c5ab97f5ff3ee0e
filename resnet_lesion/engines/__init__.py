"""Many lesions forward, all path lengths backward; no data, no files, no xarray. Below: network."""
