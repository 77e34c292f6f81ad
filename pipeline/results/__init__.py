"""What is measured of heads and masks, and how it is drawn."""
