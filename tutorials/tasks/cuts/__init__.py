"""Cuts in clips: which frames, and where, tell a network that a shot ends?"""
