"""Event -> signed webhook: at least once, and visible when it fails."""
