"""PyBullet world, scenes, scripted expert and renderer. No rclpy."""
