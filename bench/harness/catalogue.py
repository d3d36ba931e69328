"""Every scenario, in the order of the tables."""
from . import admission, processes, scenarios, seeing

ALL = scenarios.ALL + processes.ALL + admission.ALL + seeing.ALL
