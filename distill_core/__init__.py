"""Mathematics, data and storage of dataset distillation on one machine.

Importing this package costs nothing: no torch, no network, no file is touched. The core knows no
Ray, no Prefect, no command line and no cloud SDK (checked by import-linter); object stores are
reached because a URL says ``s3://`` and fsspec finds the driver.
"""
