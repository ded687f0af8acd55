"""Memory that one process of each stage needs, and what its worker declares to Ray.

stages:   every stage, in order; worker: what a worker of a stage declares.
making:   recover and relabel. reading: statistics, select and validate.
training: squeeze and post-train. parts: constants, and where they were measured.
networks: sizes of networks; footprints: the table of those that are measured.
"""
