"""Real servers, with and without Shunt: what the demo and the application tests have in common.

Reading order: paths, packages, session (processes and their end), preload (Shunt before a command, and its
reports), server (start, ready, stop), then one file for each server.
"""
