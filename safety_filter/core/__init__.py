"""Pure maths and decisions: no ROS, no torch, no OpenCV, no simulator; time is an argument."""
