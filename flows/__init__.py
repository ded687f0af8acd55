"""Orchestration: Prefect flows, the command line, reports. Touches no tensor."""
