"""Prefect: flows, deployments, schedules and artifacts. Nothing else imports it."""
