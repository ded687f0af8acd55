"""Configuration: one frozen tree of every setting that decides a result.

addresses: checks of addresses and credentials in a config.
load:      presets, YAML files and overrides; fingerprints.
parsing:   YAML of bounded size; explain: the first problem of a tree, in one line.
schema:    `RunConfig`, the whole tree.
data:      the dataset; split_rule: a rule that divides it.
training:  networks, optimisers, schedules and the squeeze stage.
recovery:  the recover stage; terms: its loss terms; committee: several teachers at once.
students:  the relabel and post-train stages, and rounds.
fields:    the base class and the types of fields.
"""
