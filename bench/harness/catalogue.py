"""Every scenario, in the order of the tables."""
from . import admission, processes, scenarios

ALL = scenarios.ALL + processes.ALL + admission.ALL
