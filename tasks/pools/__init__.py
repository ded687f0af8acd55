"""Pools of workers: in this process, in children, or on Ray, under one dispatcher."""
