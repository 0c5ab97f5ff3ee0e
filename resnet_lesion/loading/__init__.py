"""Images and networks by name, through timm. Below: runs, digits, text."""
