"""Offline training of prompts from a few labelled images; builds on `tpt.prompts`."""
