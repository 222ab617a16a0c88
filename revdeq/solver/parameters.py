"""Checks of the numbers that solvers and adjoints are made with."""

import math


def validated_count(name: str, value: object, *, example: int) -> int:
    """Return `value` if it is an int >= 1.

    Args:
        name: what the user calls it.
        value: what the user gave.
        example: an allowed value, for the message.

    Raises:
        TypeError: value is not an int.
        ValueError: value < 1.
    """
    said = f"{name} is {value!r}; it must be an int >= 1, such as {example}."
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(said)
    if value < 1:
        raise ValueError(said)
    return value


def validated_number(
    name: str, value: object, *, least: float, below: float, example: float, least_included: bool = True
) -> float:
    """Return `value` as a float if it is a number with least <= value < below.

    Args:
        name: what the user calls it.
        value: what the user gave.
        least: lower end of the interval.
        below: upper end, not allowed itself.
        example: an allowed value, for the message.
        least_included: whether the lower end is allowed.

    Raises:
        TypeError: value is not a real number.
        ValueError: value is NaN or outside the interval.
    """
    relation = "<=" if least_included else "<"
    said = (
        f"{name} is {value!r}; it must be a number with {least:g} {relation} {name} < {below:g}, such as {example:g}."
    )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(said)
    number = float(value)
    if math.isnan(number) or not (least <= number if least_included else least < number) or not number < below:
        raise ValueError(said)
    return number
