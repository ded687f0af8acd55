"""Prefect: the flows, their parameters, deployments and schedules. Only this folder imports it.

launch:       `complete_run`, with Prefect or without
prefect_flow: the flows distill, resume and redistill
submitted:    a flow run that follows a job of a Ray cluster
parameters:   parameters of the flows, checked
deployments:  look up, serve and trigger deployments
waiting:      wait for the end of a flow run
schedules:    schedules of the deployment of redistill
schedule_settings: what a schedule starts, in the store
cron:         times of a schedule
artifacts:    progress and results shown in Prefect
api:          connection to a server
temporary_server: a server for one command

Prefect takes seconds to import and reads its settings when it is imported. So only `prefect_flow`,
`submitted` and `artifacts`, which run inside a flow, and `temporary_server` import it at the top;
the other files import it inside functions, after `api.set_defaults`.
"""
