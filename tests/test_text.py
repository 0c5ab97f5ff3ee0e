import os

import pytest

from resnet_lesion.text import harmless


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain text", "plain text"),
        ("größer, 図, 🙂", "größer, 図, 🙂"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),  # the same in one byte
        ("over\rwritten, rubbed\x08 out\x7f", r"over\rwritten, rubbed\x08 out\x7f"),
        ("nc.\u202egpj", r"nc.\u202egpj"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
    ],
)
def test_what_steers_a_terminal_is_written_as_escapes(text, said):
    assert harmless(text) == said
    assert harmless(said) == said
    harmless(text).encode()
