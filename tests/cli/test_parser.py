import argparse

import pytest

from resnet_lesion.cli.parser import Command, add_command


@pytest.fixture
def command():
    commands = argparse.ArgumentParser().add_subparsers(parser_class=Command)
    command = add_command(commands, "paint", lambda args: None, "draw it", "paint it")
    for flag in ("--data", "--data-dir", "--split", "--checkpoint"):
        command.add_argument(flag)
    command.add_argument("--download", action="store_true")
    command.add_argument("--no-pretrained", dest="pretrained", action="store_false")
    return command


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("data='x' needs data_dir=, or (download=True).", "--data 'x' needs --data-dir, or (--download)."),
        ("expected checkpoint= or pretrained=False, got both.", "expected --checkpoint or --no-pretrained, got both."),
        ("expected split='train' or 'test'", "expected --split 'train' or 'test'"),
        ("for checkpoint=", "for --checkpoint"),
        # what is no parameter of ours, or not said as one, stays
        ("the data has no split 'x'; metadata=3, seed=1", "the data has no split 'x'; metadata=3, seed=1"),
        ("in '/home/split=train/data=1' and 'split=test'", "in '/home/split=train/data=1' and 'split=test'"),
        ("download=False", "--download False"),
    ],
)
def test_parameters_are_named_as_options(command, message, said):
    assert command.in_flags(message) == said


def test_the_parser_says_what_to_run_and_for_what(command):
    args = command.parse_args(["--debug"])
    assert args.debug
    assert args.command is command
    assert args.run(args) is None
    assert command.description == "Draw it."
    assert command.epilog == "example:\n  paint it"
