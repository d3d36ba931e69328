"""The benchmark harness: servers, load, scenarios, report."""
