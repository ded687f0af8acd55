"""The config that is recommended for a dataset of one's own: facts in, settings out.

facts:    the facts about a dataset and a machine on which the choice depends.
sizes:    the size of images, networks and trainings that suits the facts; pure.
settings: every setting with the reason for it; a shipped preset supplies all others.
document: the settings as commented YAML, which is the config of the run.
"""
