"""Real arms: their command interfaces and the files that describe them. No ROS here."""
