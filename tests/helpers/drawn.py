"""What is on the axes of a figure: curves, points with their intervals, named levels, the legend."""

import numpy as np


def curve(ax, label):
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line.get_xdata(), line.get_ydata()


def error_bars(ax, label):
    """Points and vertical bars of an errorbar plot: x, y, low, high."""
    (container,) = [container for container in ax.containers if container.get_label() == label]
    points, _, (bars,) = container.lines
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    return points.get_xdata(), points.get_ydata(), ends[:, 0], ends[:, 1]


def level(ax, name):
    """The height of the horizontal line that is named at the right edge."""
    (text,) = [text for text in ax.texts if text.get_text() == name]
    assert any(set(line.get_ydata()) == {text.get_position()[1]} for line in ax.get_lines())
    return text.get_position()[1]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]
