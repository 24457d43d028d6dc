"""Trained networks whose features metrics and losses compare: Inception, EfficientNet-Lite0, VGG16, LPIPS, DINOv2."""
