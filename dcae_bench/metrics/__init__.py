"""Metrics as functions of arrays: PSNR, SSIM, Fréchet and kernel distances, and confidence intervals. No networks."""
