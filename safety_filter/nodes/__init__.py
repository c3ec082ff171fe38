"""ROS 2 nodes: glue between topics and the packages that do the work."""
