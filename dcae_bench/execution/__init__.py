"""How a network is computed: blocks compiled or checkpointed, CUDA graphs, attention kernels, and what may differ."""
