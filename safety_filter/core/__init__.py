"""Pure maths and decisions: no ROS, no torch, no OpenCV, no simulator; time is an argument."""

from safety_filter.core.compile_cache import use_cache_of_these_sources

use_cache_of_these_sources()
