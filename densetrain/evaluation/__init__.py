"""How far a network is off, on what, and how others do."""
