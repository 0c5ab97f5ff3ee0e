"""Text from elsewhere, made fit for a terminal and for a file."""

from __future__ import annotations


def harmless(text: str) -> str:
    r"""Write as escapes what steers a terminal instead of being shown by it, and what UTF-8 cannot hold.

    Args:
        text: What may come from a stranger: an attribute of a file, the name of a layer or of a folder.

    Returns:
        The text, in which lines, tabs and everything that is printed stay. Control characters, marks that turn the
        direction of writing, and bytes of a path that are not UTF-8 become ``\x1b``, ``\u202e``, ``\udcff``.

    Example:
        >>> from resnet_lesion.text import harmless
        >>> print(harmless("title: \x1b]0;owned\x07 größer"))
        title: \x1b]0;owned\x07 größer
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
