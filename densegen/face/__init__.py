"""The face that is posed: the morphable model and its regions."""
