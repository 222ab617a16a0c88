"""Running: worker processes with limits, the parts that finished tasks leave, and what a subject is made of."""

from verify.run.process import Limits as Limits, TaskError as TaskError
from verify.run.workers import Apart as Apart, Workers as Workers
