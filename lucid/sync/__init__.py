"""The threads that publish, commit, poll and fold, and the order of own ops that they share."""
