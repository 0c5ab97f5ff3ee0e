"""The one error of our own; everything else is a TypeError or ValueError."""


class AdapterError(RuntimeError):
    """A block does not behave as its adapter says, or the model does not run its blocks one after another."""
