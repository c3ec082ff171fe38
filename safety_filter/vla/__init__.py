"""Policies with an attention tap, head selection and action chunks. No rclpy."""
