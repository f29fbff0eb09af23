"""
Two workers that share what was built before they were forked.

The application is loaded once, and its warm-up runs there. Each worker uses the pages of memory
that it inherits, builds what it needs beyond them, and closes that when it ends. A registry resets
itself after a fork, so there is nothing to do in `post_fork`.
"""

bind = "127.0.0.1:8000"
workers = 2
threads = 4
preload_app = True
