"""Every scenario, in the order of the tables."""
from . import processes, scenarios

ALL = scenarios.ALL + processes.ALL
