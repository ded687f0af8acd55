"""Networks: building, freezing, importing, and measuring their activations.

build:     a network from its config; its head.
teacher:   `FrozenTeacher`, which gives features, logits and statistics; ensemble: several as one.
files:     networks as stored files; importing: as files of other projects; spec: descriptions.
fitting:   the tensors of a file in a network; key_maps: their names in other programs;
           class_statistics: those beside the weights.
checkpoint_check: a file before it is imported, by its header.
moments:   mean and variance of activations.
small_networks, efficientnet_lite, torchvision_networks, timm_networks, initialise, batch_norms,
convolutions, measuring, unpickling, state_dicts: internals of these.
"""
