"""How a half step is done and undone."""

from revdeq.arithmetic.floating import half_step as half_step, undo_half_step as undo_half_step
