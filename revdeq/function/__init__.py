"""The user's function: what goes in and comes out, what surrounds an evaluation, what it reads, and its derivative."""

from revdeq.function.call import Function as Function
from revdeq.function.replay import Replay as Replay
