"""`safety-filter doctor`: looks at a live system and says what is wrong, and what to do."""
