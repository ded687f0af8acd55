"""Progress of a run in flight.

display:   bars or lines on stderr
event_log: the events of a driver, kept in the store
followers: several observers as one
background: calls that nobody waits for
meter:     share done, rate and time left of a stage
"""
