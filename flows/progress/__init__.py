"""Progress of a run in flight: bars, lines, rates and the event log."""
