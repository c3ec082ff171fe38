"""A second pair of eyes: distances by coal and pinocchio; of core only the wire format."""
