"""What a learned controller is held against."""
