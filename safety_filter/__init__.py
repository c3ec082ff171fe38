"""A control barrier function safety filter between a vision-language-action policy and an arm."""

__version__ = '0.1.0'
