"""The refusal of a gradient, which every room raises."""


class GradientError(RuntimeError):
    """A gradient that would be wrong, missing or not to be trusted, refused instead of returned."""
