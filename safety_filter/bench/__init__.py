"""Suites, baselines, metrics, statistics, report. No rclpy."""
