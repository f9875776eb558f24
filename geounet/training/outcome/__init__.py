"""The run folder: unfinished, finished, scored and looked at."""
