"""Execution: the dispatcher, worker classes, and Ray. Knows no Prefect."""
