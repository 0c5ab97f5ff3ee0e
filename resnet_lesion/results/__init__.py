"""What every result is made of: names, units, provenance, files. Below: network."""
