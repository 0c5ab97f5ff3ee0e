"""The command ``resnet-lesion`` and its subcommands. Below: paper, reports."""
