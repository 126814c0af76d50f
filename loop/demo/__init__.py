"""The loop closing before your eyes: four acts on the handwritten digits."""
