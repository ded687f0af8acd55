"""Texts that people enter and that lead somewhere: judged once, before anything is opened.

addresses: places of data (folders, buckets, files), one spelling each, without credentials
names:     names of runs, series and deployments, which become parts of paths
"""
