"""What the user says: apps, images, functions, as plain frozen data."""
