"""The command, run in this process."""

from resnet_lesion.cli.command import main


def run(*words):
    """Run ``resnet-lesion`` with these words and return its exit code."""
    return main([str(word) for word in words])
