"""Plain typed values: autoencoders, denoisers, diffusion processes, samplers and protocols. Imports only base."""
