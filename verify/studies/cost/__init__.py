"""What a training step costs by each method: evaluations, VJPs and bytes exactly, time as a ratio to the floor."""

from verify.studies.cost.counting import Cost as Cost, count as count
from verify.studies.cost.methods import Method as Method, compiled_of as compiled_of, methods_of as methods_of
from verify.studies.cost.peers import absent_peers as absent_peers, peers_of as peers_of
from verify.studies.cost.study import (
    FLOOR as FLOOR,
    Plan as Plan,
    cost_curves as cost_curves,
    plan_of as plan_of,
    training_steps as training_steps,
)
from verify.studies.cost.timing import Timing as Timing, clocked as clocked, interleaved as interleaved
from verify.studies.cost.workload import Workload as Workload
